"""One aten operator with its weights -> the torch.nn layer that it came from."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

if TYPE_CHECKING:
    from collections.abc import Callable

aten = torch.ops.aten

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
"""Rows of a recurrent layer's weights for each hidden unit."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
INSTANCE_NORMS = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


@dataclass(frozen=True)
class Layer:
    """A layer to be: its module without values, the tensors that belong into it, and what it is called with.

    `tensors` maps the module's own names to nodes that read them; a name in `transposed` is stored turned around.
    `first` tells that the operator gives a tuple of which the layer is the first; `recurrent`, an RNN's.
    """

    module: nn.Module
    tensors: dict[str, fx.Node]
    inputs: tuple[Any, ...]
    transposed: bool = False
    first: bool = False
    recurrent: bool = field(default=False)


class Operator:
    """A node's arguments by the names of its operator's schema, defaults filled in, and the tensors that it reads."""

    def __init__(self, node: fx.Node, values: Callable[[fx.Node], Tensor | None]) -> None:
        self.node = node
        self._values = values
        self.arguments: dict[str, Any] = {}
        schema = getattr(node.target, "_schema", None)
        for place, argument in enumerate(schema.arguments if schema else ()):
            given = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
            missing = place >= len(node.args) and argument.name not in node.kwargs
            self.arguments[argument.name] = argument.default_value if missing else given

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - an argument of any operator
        return self.arguments[name]

    def tensor(self, name: str) -> Tensor | None:
        """Return the stored tensor that an argument is read from, None where it is computed or absent."""
        return self.stored(self.arguments.get(name))

    def stored(self, node: object) -> Tensor | None:
        """Return the stored tensor that a node reads, None where it is computed."""
        return self._values(node) if isinstance(node, fx.Node) else None

    def whole(self, *names: str) -> bool:
        """Tell whether each of these arguments is a stored tensor or absent."""
        return all(self.arguments.get(name) is None or self.tensor(name) is not None for name in names)

    def nodes(self, *names: str, **renamed: str) -> dict[str, fx.Node]:
        """Return the nodes of the arguments that are there, by the module's names (module=argument)."""
        pairs = {name: name for name in names} | renamed
        return {own: self.arguments[name] for own, name in pairs.items() if self.arguments.get(name) is not None}

    @property
    def rank(self) -> int:
        """Return the number of dimensions of the first argument; 0 where nothing is known."""
        source = self.node.args[0]
        seen = source.meta.get("shape") if isinstance(source, fx.Node) else None
        return len(seen) if seen is not None else 0


def layer_of(op: Operator) -> Layer | None:
    """Return the layer that an operator came from; None where it stays as it is."""
    make = MAKERS.get(op.node.target)
    return make(op) if make is not None else None


def weightless(op: Operator) -> nn.Module | None:
    """Return a layer that has no weights but behaves otherwise in training: dropout."""
    kind = DROPOUTS.get(op.node.target)
    return None if kind is None else kind(float(op["p"]))


def _convolution(op: Operator) -> Layer | None:
    weight, bias = op.tensor("weight"), op.tensor("bias")
    if weight is None or not op.whole("bias"):
        return None
    size = weight.dim() - 2
    turned = op.arguments.get("transposed", "transpose" in str(op.node.target))
    ins, outs = (weight.shape[0], weight.shape[1]) if turned else (weight.shape[1], weight.shape[0])
    options: dict[str, Any] = {name: _spread(op[name], size) for name in ("stride", "padding", "dilation")}
    options |= {"groups": op["groups"], "bias": bias is not None, "device": "meta"}
    kernel: Any = tuple(weight.shape[2:])
    if turned:
        options["output_padding"] = _spread(op["output_padding"], size)
        module: nn.Module = TRANSPOSED[size - 1](ins, outs * op["groups"], kernel, **options)
    else:
        module = CONVOLUTIONS[size - 1](ins * op["groups"], outs, kernel, **options)
    return Layer(module, op.nodes("weight", "bias"), (op["input"],))


def _spread(value: Any, size: int) -> Any:  # noqa: ANN401 - "same", a number or several
    if isinstance(value, str):
        return value
    given = list(value) if isinstance(value, Sequence) else [value]
    return tuple(given * size if len(given) == 1 else given)


def _linear(op: Operator) -> Layer | None:
    weight, bias = op.tensor("weight"), op.tensor("bias")
    if weight is None or weight.dim() != 2 or not op.whole("bias"):  # noqa: PLR2004 - a matrix
        return None
    module = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    return Layer(module, op.nodes("weight", "bias"), (op["input"],))


def _product(op: Operator) -> Layer | None:
    """Match x @ W, x @ W.t() and b + either, as decomposed programs and ONNX files hold linear layers."""
    names = ("mat1", "mat2") if "mat1" in op.arguments else ("self", "mat2" if "mat2" in op.arguments else "other")
    factor, turned = op[names[1]], True
    if isinstance(factor, fx.Node) and _turns(factor):
        factor, turned = factor.args[0], False
    weight, bias = op.stored(factor), None
    if weight is None or weight.dim() != 2:  # noqa: PLR2004 - a matrix
        return None
    tensors = {"weight": factor}
    if op.node.target is aten.addmm.default:
        bias = op.tensor("self")
        if bias is None or bias.dim() != 1 or op["beta"] != 1 or op["alpha"] != 1:
            return None
        tensors["bias"] = op["self"]
    ins, outs = weight.shape if turned else weight.shape[::-1]
    module = nn.Linear(ins, outs, bias is not None, device="meta")
    return Layer(module, tensors, (op[names[0]],), transposed=turned)


def _turns(node: fx.Node) -> bool:
    if node.target in (aten.t.default, aten.numpy_T.default):
        return True
    swaps = [[0, 1], [1, 0], [-1, -2], [-2, -1]]
    given: Any = node.args[1:]
    if node.target is aten.permute.default:
        return list(given[0]) == [1, 0]
    return node.target is aten.transpose.int and list(given) in swaps


def _batch_norm(op: Operator) -> Layer | None:
    mean, kind = op.tensor("running_mean"), BATCH_NORMS.get(op.rank)
    if mean is None or kind is None or not op.whole("weight", "bias"):
        return None
    if (op["weight"] is None) != (op["bias"] is None):
        return None
    affine = op["weight"] is not None
    module = kind(len(mean), op["eps"], op["momentum"], affine, device="meta")
    tensors = op.nodes("weight", "bias", "running_mean", "running_var")
    return Layer(module, tensors, (op["input"],), first="legit" in str(op.node.target))


def _instance_norm(op: Operator) -> Layer | None:
    kind, weight = INSTANCE_NORMS.get(op.rank), op.tensor("weight")
    if kind is None or weight is None or op.tensor("bias") is None or op["running_mean"] is not None:
        return None
    module = kind(len(weight), op["eps"], op["momentum"], affine=True, device="meta")
    return Layer(module, op.nodes("weight", "bias"), (op["input"],))


def _layer_norm(op: Operator) -> Layer | None:
    weight, bias = op.tensor("weight"), op.tensor("bias")
    if weight is None or not op.whole("bias"):
        return None
    module = nn.LayerNorm(list(op["normalized_shape"]), op["eps"], bias=bias is not None, device="meta")
    return Layer(module, op.nodes("weight", "bias"), (op["input"],), first="native" in str(op.node.target))


def _rms_norm(op: Operator) -> Layer | None:
    if op.tensor("weight") is None:
        return None
    module = nn.RMSNorm(list(op["normalized_shape"]), op["eps"], device="meta")
    return Layer(module, op.nodes("weight"), (op["input"],))


def _group_norm(op: Operator) -> Layer | None:
    weight = op.tensor("weight")
    if weight is None or op.tensor("bias") is None:
        return None
    groups = op["num_groups"] if "num_groups" in op.arguments else op["group"]
    module = nn.GroupNorm(groups, len(weight), op["eps"], device="meta")
    return Layer(module, op.nodes("weight", "bias"), (op["input"],), first="native" in str(op.node.target))


def _embedding(op: Operator) -> Layer | None:
    weight = op.tensor("weight")
    if weight is None or op["scale_grad_by_freq"] or op["sparse"]:
        return None
    padding = op["padding_idx"] if op["padding_idx"] >= 0 else None
    module = nn.Embedding(weight.shape[0], weight.shape[1], padding_idx=padding, device="meta")
    return Layer(module, op.nodes("weight"), (op["indices"],))


def _prelu(op: Operator) -> Layer | None:
    weight = op.tensor("weight")
    if weight is None or weight.dim() != 1:
        return None
    return Layer(nn.PReLU(len(weight), device="meta"), op.nodes("weight"), (op["self"],))


def _recurrent(op: Operator) -> Layer | None:
    """Match an LSTM, GRU or plain RNN over padded sequences; one over packed sequences stays an operator."""
    name = str(op.node.target).split(".")[1]
    if not all(op.stored(node) is not None for node in op["params"]):
        return None
    hidden_rows = op.stored(op["params"][1])
    first_rows = op.stored(op["params"][0])
    if hidden_rows is None or first_rows is None:
        return None
    hidden = hidden_rows.shape[0] // GATES[name]
    options: dict[str, Any] = {
        "num_layers": op["num_layers"],
        "bias": op["has_biases"],
        "batch_first": op["batch_first"],
        "dropout": op["dropout"],
        "bidirectional": op["bidirectional"],
        "device": "meta",
    }
    sizes = (first_rows.shape[1], hidden)
    if name == "lstm":
        projected = hidden_rows.shape[1] if hidden_rows.shape[1] != hidden else 0
        module: nn.Module = nn.LSTM(*sizes, proj_size=projected, **options)
    elif name == "gru":
        module = nn.GRU(*sizes, **options)
    else:
        module = nn.RNN(*sizes, nonlinearity=name.removeprefix("rnn_"), **options)
    names = [parameter for parameter, _ in module.named_parameters()]
    if len(names) != len(op["params"]):
        return None
    states = op["hx"]
    began = list(states) if isinstance(states, (list, tuple)) else [states]
    fresh = all(isinstance(state, fx.Node) and _zeros(state) for state in began)
    state = () if fresh else ((tuple(began),) if name == "lstm" else (began[0],))
    tensors = dict(zip(names, op["params"], strict=True))
    return Layer(module, tensors, (op["input"], *state), recurrent=True)


def _zeros(node: fx.Node) -> bool:
    if node.target in (aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default):
        return True
    value: object = node.args[1] if node.target is aten.full.default else math.nan
    return isinstance(value, (int, float)) and value == 0


DROPOUTS: dict[Any, Any] = {
    aten.dropout.default: nn.Dropout,
    aten.feature_dropout.default: nn.Dropout2d,
    aten.alpha_dropout.default: nn.AlphaDropout,
}

MAKERS: dict[Any, Callable[[Operator], Layer | None]] = {
    **dict.fromkeys((aten.conv1d.default, aten.conv2d.default, aten.conv3d.default), _convolution),
    **dict.fromkeys((aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding), _convolution),
    **dict.fromkeys((aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input),
                    _convolution),
    aten.convolution.default: _convolution,
    aten.linear.default: _linear,
    **dict.fromkeys((aten.addmm.default, aten.mm.default, aten.matmul.default), _product),
    aten.batch_norm.default: _batch_norm,
    aten._native_batch_norm_legit_no_training.default: _batch_norm,  # noqa: SLF001 - an operator's name
    aten.instance_norm.default: _instance_norm,
    **dict.fromkeys((aten.layer_norm.default, aten.native_layer_norm.default), _layer_norm),
    aten.rms_norm.default: _rms_norm,
    **dict.fromkeys((aten.group_norm.default, aten.native_group_norm.default), _group_norm),
    aten.embedding.default: _embedding,
    aten.prelu.default: _prelu,
    **dict.fromkeys((aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input), _recurrent),
}  # fmt: skip


def only_first(node: fx.Node) -> bool:
    """Tell whether all that is read of a tuple is its first entry."""
    return all(user.target is operator.getitem and user.args[1] == 0 for user in node.users)
