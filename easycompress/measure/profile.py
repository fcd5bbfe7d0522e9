"""What a model is made of, read from its modules and from its exported graph."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import onnx
from torch import nn

from easycompress.artifact.external import parameter_of
from easycompress.artifact.gates import recurrent_matrices
from easycompress.core.profile import Architecture, Family, LayerProfile, ModelProfile
from easycompress.measure.compute import OperatorMacs, macs_by_operator

if TYPE_CHECKING:
    import numpy as np

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
NORMALISATIONS = (nn.modules.batchnorm._BatchNorm,)  # noqa: SLF001 - the only common base of BatchNorm1d to 3d
ATTENTION_NAMES = ("attention", "attn")


def profile(model: nn.Module, graph: onnx.ModelProto, input_shape: tuple[int, ...], outputs: int) -> ModelProfile:
    """Profile a model from its modules and its unstripped export (whose initializers carry the parameters' names).

    Every parameter counts once, at the module that owns it, so none that containers hold is missed.
    """
    operators = macs_by_operator(graph)
    by_module: dict[str | None, int] = {}  # None: products of activations
    parameters = _parameters_of(model, graph)
    for row in operators:
        owner = parameters[row.weight].rpartition(".")[0] if row.weight in parameters else None
        by_module[owner] = by_module.get(owner, 0) + row.macs
    layers = []
    seen: set[int] = set()
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if id(p) not in seen]
        seen.update(id(p) for p in own)
        macs = by_module.pop(name, 0)
        if own or macs:
            params = sum(p.numel() for p in own)
            layers.append(
                LayerProfile(
                    name=name, type=type(module).__name__, family=_family(name, module), params=params, macs=macs
                )
            )
    rest = sum(by_module.values())
    if rest:
        attention = any(_is_attention(name, module) for name, module in model.named_modules())
        family: Family = "attention" if attention else "other"
        layers.append(LayerProfile(name="(products)", type="MatMul", family=family, params=0, macs=rest))
    return ModelProfile(
        architecture=_architecture(model),
        layers=tuple(layers),
        params=sum(layer.params for layer in layers),
        macs=_total(operators),
        has_batch_norm=any(isinstance(m, NORMALISATIONS) for m in model.modules()),
        input_shape=input_shape,
        outputs=outputs,
    )


def _parameters_of(model: nn.Module, graph: onnx.ModelProto) -> dict[str, str]:
    """Return the parameter that each initializer holds: the one of its name, or one that export stored transposed.

    A linear layer on (N, T, C) inputs becomes a MatMul with a transposed weight under a made-up name; a recurrent one's
    gates stand in another order there. A graph that names its weights says it itself.
    """
    names = {name: name for name, _ in model.named_parameters(remove_duplicate=False)}
    outside = {t.name: held for t in graph.graph.initializer if (held := parameter_of(t)) is not None}
    if outside:
        return names | outside
    matrices = {name: p.detach() for name, p in model.named_parameters() if p.dim() == 2}  # noqa: PLR2004 - a matrix
    transposed = {_digest(matrix.t().numpy()): name for name, matrix in matrices.items()}
    for tensor in graph.graph.initializer:
        if tensor.name not in names and len(tensor.dims) == 2:  # noqa: PLR2004 - a matrix
            found = transposed.get(_digest(onnx.numpy_helper.to_array(tensor)))
            if found is not None:
                names[tensor.name] = found
    plain: dict[bytes, str] = {}
    for tensor_name, _, stacked in recurrent_matrices(graph.graph):
        plain = plain or {_digest(matrix.numpy()): name for name, matrix in matrices.items()}
        found = plain.get(_digest(stacked[0]))
        if found is not None:
            names[tensor_name] = found
    return names


def _digest(matrix: np.ndarray[Any, Any]) -> bytes:
    return hashlib.sha256(repr(matrix.shape).encode() + matrix.tobytes()).digest()


def _total(operators: list[OperatorMacs]) -> int:
    return sum(row.macs for row in operators)


def _is_attention(name: str, module: nn.Module) -> bool:
    last = name.rpartition(".")[2].lower()
    return isinstance(module, nn.MultiheadAttention) or any(
        word in last or word in type(module).__name__.lower() for word in ATTENTION_NAMES
    )


def _family(name: str, module: nn.Module) -> Family:
    if isinstance(module, CONVOLUTIONS):
        return "convolutional"
    if any(word in part.lower() for part in name.split(".") for word in ATTENTION_NAMES) or isinstance(
        module, nn.MultiheadAttention
    ):
        return "attention"
    if isinstance(module, nn.Linear):
        return "linear"
    return "other"


def _architecture(model: nn.Module) -> Architecture:
    """Name the architecture by what it contains: attention outweighs recurrence, which outweighs convolutions."""
    modules = list(model.named_modules())
    if any(_is_attention(name, module) for name, module in modules if name):
        return "transformer"
    if any(isinstance(module, RECURRENT) for _, module in modules):
        return "rnn"
    if any(isinstance(module, CONVOLUTIONS) for _, module in modules):
        return "cnn"
    if any(isinstance(module, nn.Linear) for _, module in modules):
        return "fnn"
    return "other"
