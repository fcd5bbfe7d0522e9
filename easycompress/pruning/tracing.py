"""Which channels of which layers are tied, read from one ordinary run of the model.

Every output channel of a layer gets a label, an *atom*. The run of an example batch is watched operator by operator,
and each tensor carries, for each of its dimensions, the atoms along it (None: no channels). Operators that keep
channels apart pass atoms on; two that meet in an addition are tied; an operator that mixes channels in a way that isn't
known here pins them, so that they are never removed. What isn't understood costs compression, never correctness, and
one run is all it takes: no graph is searched, nothing can hang.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from easycompress.core.inputs import call
from easycompress.pruning.operators import RULES, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from easycompress.core.inputs import Inputs

    Atoms = np.ndarray[Any, np.dtype[np.int64]]
    Labels = tuple[Atoms | None, ...]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
LEAVES = (*CONVOLUTIONS, nn.Linear, *BATCH_NORMS, nn.LayerNorm, nn.Embedding)
FORWARDS = {layer.forward for layer in LEAVES}
LAYER_NORM = "aten::native_layer_norm"


@dataclass
class Slot:
    """A dimension of a layer or of a bare parameter whose places are channels.

    `owner` is the layer's or the parameter's name. `side`: `out` and `in` of a layer, `both` where one is the other
    (norms, depthwise convolutions), `parameter` along its dimension `dim`. `atoms` (width,) are its channels.
    """

    owner: str
    side: str
    atoms: Atoms
    dim: int = 0


@dataclass
class Trace:
    """What a run showed.

    `mixed` are operators and recurrent layers that channels can't be followed through, `cut` operators that take a part
    of them, `shared` layers whose weights others read too.
    """

    slots: list[Slot] = field(default_factory=list)
    mixed: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)
    edges: list[tuple[Atoms, Atoms]] = field(default_factory=list)
    pinned: list[Atoms] = field(default_factory=list)
    count: int = 0

    def fresh(self, width: int) -> Atoms:
        """Return `width` new atoms."""
        self.count += width
        return np.arange(self.count - width, self.count)

    def tie(self, left: Atoms | None, right: Atoms | None) -> None:
        """Let two dimensions of equal size live and die together; what meets no channels is pinned."""
        if left is not None and right is not None:
            self.edges.append((left, right))
        else:
            self.pin(left if left is not None else right)

    def pin(self, *labels: Atoms | None) -> None:
        """Keep these channels for good."""
        self.pinned.extend(atoms.ravel() for atoms in labels if atoms is not None)

    def families(self) -> tuple[Atoms, Atoms]:
        """Return each atom's family (atoms,), tied ones share it, and which families may go (families,)."""
        left = np.concatenate([edge[0] for edge in self.edges] or [np.empty(0, np.int64)])
        right = np.concatenate([edge[1] for edge in self.edges] or [np.empty(0, np.int64)])
        ties = coo_matrix((np.ones(len(left), np.int8), (left, right)), shape=(self.count, self.count))
        number, family = connected_components(ties, directed=False)
        free = np.ones(number, bool)
        for atoms in self.pinned:
            free[family[atoms]] = False
        for slot in self.slots:
            if slot.side == "out":  # two outputs of one layer that are tied to each other: nobody could remove one
                kinds, uses = np.unique(family[slot.atoms], return_counts=True)
                free[kinds[uses > 1]] = False
        return family, free


def trace(model: nn.Module, example: Inputs) -> Trace:
    """Run `model` on `example` (2, ...) and return what ties its channels. Raises whatever the forward raises."""
    watcher = _Watcher(model)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused operator would hide the layers inside
    try:
        with torch.no_grad(), watcher.hooked(model), watcher:
            output = call(model, example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    for tensor in tree_leaves(output):
        if isinstance(tensor, Tensor):
            watcher.trace.pin(*watcher.labels_of(tensor))
    watcher.finish()
    return watcher.trace


class _Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Follows atoms through every operator of a run; known layers are taken as a whole."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.trace = Trace()
        self.labels: Any = WeakIdKeyDictionary()
        self.inside: nn.Module | None = None
        self.known: dict[nn.Module, tuple[Atoms, Atoms]] = {}
        self.names = {module: name for name, module in model.named_modules()}
        self.leaf_of: dict[int, nn.Module] = {}
        self.parameters: dict[int, str] = {}
        self.stolen: set[nn.Module] = set()
        for name, parameter in model.named_parameters(remove_duplicate=False):
            owner = model.get_submodule(name.rpartition(".")[0])
            if not (_is_leaf(owner) or isinstance(owner, nn.LayerNorm)):
                self.parameters[id(parameter)] = name
                continue
            other = self.leaf_of.setdefault(id(parameter), owner)
            if other is not owner:  # a weight that two layers share keeps its size
                self.stolen |= {other, owner}

    @contextlib.contextmanager
    def hooked(self, model: nn.Module) -> Iterator[None]:
        """Watch the known layers of the model while it runs."""
        handles: list[Any] = []
        for module in model.modules():
            if _is_leaf(module) or isinstance(module, RECURRENT):
                leave = self._leave if _is_leaf(module) else self._leave_recurrent
                handles.append(module.register_forward_pre_hook(self._enter))
                handles.append(module.register_forward_hook(leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, _inputs: Any) -> None:  # noqa: ANN401 - hook signature
        self.inside = module

    def _leave(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.inside = None
        self.labels[output] = self._through(module, inputs[0], output)

    def _leave_recurrent(self, module: nn.Module, inputs: tuple[Any, ...], _output: Any) -> None:  # noqa: ANN401 - hook signature
        """Keep what a recurrent layer reads: its gates tie all of its own units to each other."""
        self.inside = None
        given = [self.labels_of(leaf) for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
        self.trace.mixed.add(f"{type(module).__name__} {self.names[module]}".rstrip())
        self.trace.pin(*(atoms for labels in given for atoms in labels))

    def _through(self, module: nn.Module, source: Tensor, output: Tensor) -> Labels:
        """Return the labels of a layer's output; its inputs are tied to its weights."""
        given = self.labels_of(source)
        if isinstance(module, nn.Embedding):
            self.trace.pin(*given)
            return (*(None for _ in output.shape[:-1]), self._sides(module)[1])
        channel = source.dim() - 1 if isinstance(module, (nn.Linear, nn.LayerNorm)) else _channel_dim(module, source)
        ins, outs = self._sides(module)
        self.trace.tie(given[channel], ins)
        kept = isinstance(module, (nn.Linear, nn.LayerNorm, *BATCH_NORMS))
        passed = [given[dim] if kept or dim < channel else None for dim in range(output.dim())]
        if not kept:
            self.trace.pin(*given[channel + 1 :])
        if isinstance(module, nn.LayerNorm):
            self.trace.pin(*given[source.dim() - len(module.normalized_shape) : channel])
        passed[channel] = outs
        return tuple(passed)

    def _sides(self, module: Any) -> tuple[Atoms, Atoms]:  # noqa: ANN401 - any known layer
        """Return the atoms of a layer's inputs and outputs, the same ones however often it is called."""
        if module in self.known:
            return self.known[module]
        name, trace = self.names[module], self.trace
        if isinstance(module, (nn.Linear, *CONVOLUTIONS)):
            groups = getattr(module, "groups", 1)
            n_in = int(getattr(module, "in_channels", 0) or getattr(module, "in_features", 0))
            n_out = int(getattr(module, "out_channels", 0) or getattr(module, "out_features", 0))
            if groups > 1 and groups == n_in == n_out:
                sides = (trace.fresh(n_in),) * 2
                trace.slots.append(Slot(name, "both", sides[0]))
            else:
                sides = trace.fresh(n_in), trace.fresh(n_out)
                trace.slots += [Slot(name, "out", sides[1]), Slot(name, "in", sides[0])]
                if groups > 1:  # its channels are tied in blocks
                    trace.pin(*sides)
        elif isinstance(module, nn.Embedding):
            sides = (trace.fresh(module.embedding_dim),) * 2
            trace.slots.append(Slot(name, "both", sides[0]))
        else:
            norm = isinstance(module, nn.LayerNorm)
            sides = (trace.fresh(module.normalized_shape[-1] if norm else module.num_features),) * 2
            trace.slots.append(Slot(name, "both", sides[0]))
            if norm and (len(module.normalized_shape) > 1 or not module.elementwise_affine):
                trace.pin(sides[0])
        self.known[module] = sides
        return sides

    def labels_of(self, tensor: Tensor) -> Labels:
        """Return a tensor's labels, one a dimension; a bare parameter's dimensions are channels until shown not to."""
        found = self.labels.get(tensor)
        if found is not None:
            return tuple(found)
        if id(tensor) in self.leaf_of:  # a layer's weight that something else than the layer reads
            self.stolen.add(self.leaf_of[id(tensor)])
        if id(tensor) not in self.parameters:
            return (None,) * tensor.dim()
        made: list[Atoms | None] = []
        for dim, size in enumerate(tensor.shape):
            made.append(self.trace.fresh(size) if size > 1 else None)
            if made[-1] is not None:
                self.trace.slots.append(Slot(self.parameters[id(tensor)], "parameter", made[-1], dim))
        self.labels[tensor] = tuple(made)
        return tuple(made)

    def finish(self) -> None:
        """Pin the layers whose weights were read behind their back, also where the layer itself never ran."""
        for module in self.stolen:
            self.trace.shared.add(self.names[module])
            self.trace.pin(*self._sides(module))

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's operator type
        types: Any,  # noqa: ANN401 - torch's signature
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operator returns
        """Run an operator and label what it returns."""
        result = func(*args, **(kwargs or {}))
        if self.inside is None:
            self._label(func, args, kwargs or {}, result)
        return result

    def _label(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:  # noqa: ANN401 - torch
        name = func._schema.name  # noqa: SLF001 - torch has no public one
        if name == LAYER_NORM and isinstance(norm := self.leaf_of.get(id(args[2])), nn.LayerNorm):
            self.labels[result[0]] = self._through(norm, args[0], result[0])  # a norm of a class of its own
            return
        sources = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        given = [self.labels_of(tensor) for tensor in sources]
        if not any(atoms is not None for labels in given for atoms in labels):
            return
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        rule = RULES.get(name)
        if rule is None and torch.Tag.pointwise in func.tags:
            rule = RULES["pointwise"]
        made = rule(Step(self.trace, sources, given, args, kwargs, outputs)) if rule is not None else None
        if made is None:
            self.trace.mixed.add(name)
            for labels in given:
                self.trace.pin(*labels)
            return
        for tensor, labels in zip(outputs, made, strict=True):
            if any(tensor is source for source in sources) and tensor._base is not None:  # noqa: SLF001 - torch's name
                self.trace.pin(*labels)  # written into a part of a tensor that has labels of its own
            self.labels[tensor] = labels


def _is_leaf(module: nn.Module) -> bool:
    """Tell whether a layer runs as its class says, on a weight of its own."""
    return type(module).forward in FORWARDS and ("weight" in module._parameters or isinstance(module, BATCH_NORMS))  # noqa: SLF001 - the only way to know


def _channel_dim(module: Any, source: Tensor) -> int:  # noqa: ANN401 - a convolution or batch norm
    """Return the place of the channels: convolutions also take a sample without batch."""
    if isinstance(module, BATCH_NORMS):
        return 1
    return source.dim() - 1 - len(module.kernel_size)
