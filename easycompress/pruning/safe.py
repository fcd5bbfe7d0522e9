"""Dependencies from a trace of one run, behind the interface of torch-pruning's graph.

torch-pruning follows gradients and guesses what operators did to the channels; on windows that are rolled, on heads and
on shuffled channels it guesses wrong, fails, or doesn't come back. Here only channels go of which the trace knows every
place where they are read, and each group is tried on a copy before it is offered.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch_pruning as tp
from torch import nn
from torch_pruning._helpers import GroupItem
from torch_pruning.dependency import Dependency, Group
from torch_pruning.dependency.node import Node

from easycompress.core.errors import CannotCompress
from easycompress.core.inputs import answer, parts
from easycompress.pruning.tracing import CONVOLUTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from easycompress.core.inputs import Inputs
    from easycompress.pruning.tracing import Slot, Trace


class SafeDependencies(tp.DependencyGraph):  # type: ignore[misc]  # torch-pruning is untyped
    """Which channels of a model can be removed, and where; `forbidden` are roots that turned out not to."""

    def __init__(self, model: nn.Module, slots: list[Slot], families: tuple[Any, Any]) -> None:
        super().__init__()
        self.model = model
        self.slots = slots
        self.family, self.free = families
        self.forbidden: frozenset[str] = frozenset()
        self._slots_of = self._by_root()
        self._module2name = {module: name for name, module in model.named_modules()}
        self.nodes: dict[str, Node] = {}
        self.module2node: dict[Any, Node] = {}
        self._param_to_name: dict[nn.Parameter, str] = {}
        for slot in self.slots:
            if slot.owner in self.nodes:
                continue
            target = model.get_parameter(slot.owner) if slot.side == "parameter" else model.get_submodule(slot.owner)
            node = Node(target, None, slot.owner)
            node.outputs = [node]  # read by something, whatever it is: what reaches the output isn't free
            self.nodes[slot.owner] = self.module2node[target] = node
            if isinstance(target, nn.Parameter):
                self._param_to_name[target] = slot.owner

    def copied(self) -> SafeDependencies:
        """Return the same of a copy of the model."""
        slots = [replace(slot) for slot in self.slots]
        return SafeDependencies(copy.deepcopy(self.model), slots, (self.family, self.free))

    def roots(self) -> list[str]:
        """Return the layers whose output channels can be removed, each group once, in the order in which they ran."""
        open_ = self.free.copy()
        found = []
        for slot in self.slots:
            families = self.family[slot.atoms]
            if slot.side == "out" and open_[families].all():
                open_[families] = False  # of a forbidden root too: no other layer of its group may go either
                if slot.owner not in self.forbidden:
                    found.append(slot.owner)
        return found

    def _by_root(self) -> dict[str, list[Slot]]:
        """Return which slots hold channels of each root: groups never share any, and removal adds none."""
        roots = self.roots()
        root_of = np.full(len(self.free), -1)
        for number, root in enumerate(roots):
            root_of[self.family[self._own(root).atoms]] = number
        found: dict[str, list[Slot]] = {root: [] for root in roots}
        for slot in self.slots:
            for number in np.unique(root_of[self.family[slot.atoms]]):
                if number >= 0:
                    found[roots[number]].append(slot)
        return found

    def _own(self, root: str) -> Slot:
        """Return the slot of a layer's output channels."""
        return next(slot for slot in self.slots if slot.owner == root and slot.side in ("out", "both"))

    def widths(self, roots: Sequence[str]) -> dict[str, int]:
        """Return how many channels each root has now."""
        return {root: len(self._own(root).atoms) for root in roots}

    def get_all_groups(
        self,
        ignored_layers: Sequence[nn.Module] = (),  # noqa: ARG002 - the interface
        root_module_types: Sequence[type[nn.Module]] = (*CONVOLUTIONS, nn.Linear),
    ) -> Iterator[Group]:
        """Yield every group with all of its channels."""
        for root in self.roots():
            module: nn.Module = self.nodes[root].module
            if isinstance(module, tuple(root_module_types)):
                pruner = self.get_pruner_of_module(module)
                yield self.get_pruning_group(module, pruner.prune_out_channels, range(pruner.get_out_channels(module)))

    def get_pruning_group(self, module: nn.Module, pruning_fn: Any, idxs: Sequence[int]) -> Group:  # noqa: ANN401, ARG002 - the interface
        """Return what goes with the output channels `idxs` of a layer: the layer first, each with its own places."""
        root = self._module2name[module]
        own = self._own(root)
        place_of = np.full(len(self.free), -1)
        place_of[self.family[own.atoms[list(idxs)]]] = list(idxs)
        group = _SafeGroup(self)
        slots = self._slots_of.get(root, self.slots)
        for slot in sorted(slots, key=lambda slot: slot is not own):  # stable: the root first, then as they ran
            places = place_of[self.family[slot.atoms]]
            gone = np.flatnonzero(places >= 0)
            if len(gone):
                group.items.append(self._item(slot, gone.tolist(), places[gone].tolist()))
        return group

    def check_pruning_group(self, group: Group) -> bool:
        """Tell whether every layer and parameter keeps a channel."""
        return all(len(item.idxs) < len(item.dep.slot.atoms) for item in group)

    def remove(self, channels: Mapping[str, Sequence[int]], *, sparing: bool = False) -> None:
        """Remove `channels` (places by root) of several groups at once; each layer is rewritten once.

        Raises CannotCompress where a layer would be left with none, or keeps its first if `sparing`.
        """
        going = np.zeros(len(self.free), bool)
        for root, places in channels.items():
            going[self.family[self._own(root).atoms[list(places)]]] = True
        for slot in self.slots:
            families = self.family[slot.atoms]
            if going[families].all() and not sparing:
                raise CannotCompress(f"layer {slot.owner}: removing {len(families)} of its channels would leave none")
            if going[families].all():
                going[families[0]] = False
        group = _SafeGroup(self)
        for slot in self.slots:
            gone = np.flatnonzero(going[self.family[slot.atoms]]).tolist()
            if gone:
                group.items.append(self._item(slot, gone, gone))
        group.prune()

    def _item(self, slot: Slot, gone: list[int], places: list[int]) -> GroupItem:
        """Return that the places `gone` of a slot go, `places` those of the root."""
        node = self.nodes[slot.owner]
        pruner = self.get_pruner_of_module(node.module)
        handler = pruner.prune_in_channels if slot.side == "in" else pruner.prune_out_channels
        item = GroupItem(_Dependency(handler, handler, node, node, slot), gone)
        item.root_idxs = places
        return item


class _Dependency(Dependency):  # type: ignore[misc]  # torch-pruning is untyped
    def __init__(self, trigger: Any, handler: Any, source: Node, target: Node, slot: Slot) -> None:  # noqa: ANN401 - the interface
        super().__init__(trigger, handler, source, target)
        self.slot = slot

    def __call__(self, idxs: list[int]) -> Any:  # noqa: ANN401 - the interface
        self.target.pruning_dim = self.slot.dim
        return super().__call__(idxs)


class _SafeGroup(Group):  # type: ignore[misc]  # torch-pruning is untyped
    def __init__(self, graph: SafeDependencies) -> None:
        super().__init__()
        self._DG = graph

    def prune(self, idxs: list[int] | None = None, record_history: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - the interface
        """Remove the channels from the layers, and from what is known about them."""
        super().prune(record_history=False)
        for dep, gone in self.items:
            dep.slot.atoms = np.delete(dep.slot.atoms, gone)


ONE_LESS, HALF = (0,), 2
"""How groups are narrowed to try them: most that fail do so one channel narrower, for half of the price."""

EVERY_MODULES = frozenset(vars(nn.Module()))
"""Attributes that every module has."""

REMEMBERED = 64
"""Structures whose trials are kept: a search prunes copies of one model again and again."""

_tried: OrderedDict[tuple[Any, ...], frozenset[str]] = OrderedDict()


def safe_dependencies(model: nn.Module, example: Inputs, found: Trace) -> SafeDependencies:
    """Return the dependencies of `model` that a trace `found`, each group tried.

    A forward may still fix a width by a number of its own (a reshape to heads): such groups fail on a copy, are found
    by halving, and stay.
    """
    graph = SafeDependencies(model, found.slots, found.families())
    key = _structure(model, example, graph)
    if key not in _tried:
        with torch.no_grad():
            shape = answer(model, example).shape
        _tried[key] = frozenset(_failing(graph, graph.roots(), example, shape))
        if len(_tried) > REMEMBERED:
            _tried.popitem(last=False)
    _tried.move_to_end(key)
    graph.forbidden = _tried[key]
    return graph


def _structure(model: nn.Module, example: Inputs, graph: SafeDependencies) -> tuple[Any, ...]:
    """Return all that a forward's shapes can depend on: classes, attributes of the modules' own, shapes; no weights.

    What doesn't read the same after copying (an object without a text of its own) only makes another structure.
    """
    texts: dict[int, str] = {}  # a configuration is shared by all modules
    modules = []
    for module in model.modules():
        own = {name: value for name, value in vars(module).items() if name not in EVERY_MODULES}
        texts |= {id(value): repr(value) for value in own.values() if id(value) not in texts}
        modules.append((type(module), tuple((name, texts[id(own[name])]) for name in sorted(own))))
    shapes = [tuple(tensor.shape) for tensor in (*model.state_dict().values(), *parts(example))]
    slots = [(slot.owner, slot.side, len(slot.atoms)) for slot in graph.slots]
    return (*modules, *shapes, *slots)


def _failing(graph: SafeDependencies, roots: list[str], example: Inputs, shape: torch.Size) -> list[str]:
    """Return roots without which all the others run together, one channel narrower and at about half their width."""
    failing: list[str] = []
    rest = roots
    for steps in (ONE_LESS, (*ONE_LESS, HALF)):

        def runs(some: list[str], steps: tuple[int, ...] = steps) -> bool:
            return _runs(graph, some, example, shape, steps)

        while rest and not runs(rest):
            failing += _suspects(runs, rest)
            rest = [root for root in rest if root not in failing]
    return failing


def _suspects(runs: Callable[[list[str]], bool], roots: list[str]) -> list[str]:
    """Return at least one of the roots, which don't run together: by halves those that don't run without the others.

    Where the first half runs the second isn't asked: it is to blame, or one of it is for what they do together.
    """
    if len(roots) == 1:
        return roots
    first, second = roots[: len(roots) // 2], roots[len(roots) // 2 :]
    found = [] if runs(first) else _suspects(runs, first)
    if not found or not runs(second):
        found = found + _suspects(runs, second)
    return found


def _runs(
    graph: SafeDependencies, roots: list[str], example: Inputs, shape: torch.Size, steps: tuple[int, ...]
) -> bool:
    """Tell whether a copy runs after each step: every so many-th channel of each group gone, 0 for one of them."""
    trial = graph.copied()
    for step in steps:
        widths = trial.widths(roots)
        trial.remove({root: range(1, width, step or width) for root, width in widths.items()}, sparing=True)
        try:
            with torch.no_grad():
                if answer(trial.model, example).shape != shape:
                    return False
        except Exception:  # noqa: BLE001 - whatever a forward runs into when a width changes
            return False
    return True
