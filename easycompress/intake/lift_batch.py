"""A graph that was exported for one batch size follows the batch that it is given."""

from __future__ import annotations

import math
import operator
import sys
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx
from torch.fx.node import map_arg

from easycompress.core.errors import CannotCompress, one_line
from easycompress.intake.lift_layers import aten

if TYPE_CHECKING:
    from collections.abc import Sequence

VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)  # noqa: SLF001 - an operator's name

FACTORIES = {
    aten.zeros.default: 0, aten.ones.default: 0, aten.empty.memory_format: 0, aten.full.default: 0,
    aten.rand.default: 0, aten.randn.default: 0, aten.new_zeros.default: 1, aten.new_ones.default: 1,
    aten.new_full.default: 1, aten.new_empty.default: 1,
}  # fmt: skip
"""Operators that make a tensor of a given size, with the place of the size among their arguments."""

RECURRENT = (aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input)

REMEDY = 'export it with a dynamic batch: torch.export.export(model, args, dynamic_shapes=({0: Dim("batch")},))'


View = tuple[tuple[int, ...], int, tuple[int, ...]]
"""A view as it was observed: the shape before it, the place of the batch in there, the shape after it."""

Choices = dict[View, int]


def observe(source: fx.GraphModule, tensors: Sequence[Tensor]) -> Any:  # noqa: ANN401 - whatever the graph returns
    """Run a graph, note each tensor's shape as `node.meta["shape"]`, and return its output."""
    return _Run(source).over(tensors, batch=0)


def follow(
    source: fx.GraphModule, tensors: Sequence[Tensor], batch: int, choices: Choices, open_: dict[View, int]
) -> None:
    """Let a graph that was observed with `batch` samples take any number of them. Changes `source`.

    `tensors` are inputs of another number of samples. The literal sizes are rewritten where the batch runs through:
    views keep the batch's place among the elements, and sizes of new and of expanded tensors begin with it. Whether
    that was right is for the caller to prove. A batch of one could be in several places of some views: `choices` tells
    which of them to take, the likeliest unless said, and `open_` gains how many there are. Raises CannotCompress with
    the node where the graph can't go on.
    """
    graph = source.graph
    first = next(node for node in graph.nodes if node.op == "placeholder" and node.meta.get("shape"))
    after = [node for node in graph.nodes if node.op == "placeholder"][-1]
    with graph.inserting_after(after):
        size = graph.call_function(aten.sym_size.int, (first, 0))
    run = _Run(source, size)
    run.choices, run.open = choices, open_
    run.over(tensors, batch=batch)
    graph.eliminate_dead_code()
    source.recompile()


class _Run:
    """One pass through a graph on real tensors, which notes shapes or, with `size`, rewrites sizes on the way."""

    def __init__(self, source: fx.GraphModule, size: fx.Node | None = None) -> None:
        self.source = source
        self.size = size
        self.values: dict[fx.Node, Any] = {}
        self.choices: Choices = {}
        self.open: dict[View, int] = {}

    def over(self, tensors: Sequence[Tensor], *, batch: int) -> Any:  # noqa: ANN401 - whatever the graph returns
        inputs = iter(tensors)
        last = {node: user for user in self.source.graph.nodes for node in user.all_input_nodes}
        freed: dict[fx.Node, list[fx.Node]] = {}
        for node, user in last.items():
            freed.setdefault(user, []).append(node)
        for node in list(self.source.graph.nodes):
            if node.op == "output":
                return map_arg(node.args[0], self.values.__getitem__)
            if node.op == "placeholder":
                self.values[node] = next(inputs)
            else:
                if batch:
                    self._rewrite(node, batch)
                self.values[node] = self._run(node)
                if batch and "inner" not in node.meta:
                    node.meta["inner"] = max((n.meta.get("inner", 1) for n in node.all_input_nodes), default=1)
            if not batch and isinstance(self.values[node], Tensor):
                node.meta["shape"] = tuple(self.values[node].shape)
            for spent in freed.get(node, ()):
                if spent is not self.size and spent.op != "placeholder":
                    self.values.pop(spent, None)
        return None

    def _run(self, node: fx.Node) -> Any:  # noqa: ANN401 - whatever an operator returns
        if node.op == "get_attr":
            found: Any = self.source
            for part in str(node.target).split("."):
                found = getattr(found, part)
            return found
        args: Any = map_arg(node.args, self.values.__getitem__)
        keywords: Any = map_arg(node.kwargs, self.values.__getitem__)
        if node.target in RECURRENT:
            _check_states(node, *args[:2])
        try:
            return node.target(*args, **keywords)  # type: ignore[operator]
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            if self.size is None:
                raise
            raise CannotCompress(f"{node.name} ({node.target}) {one_line(error, 100)}") from error

    def _rewrite(self, node: fx.Node, batch: int) -> None:
        source = node.args[0] if node.args else None
        old = source.meta.get("shape") if isinstance(source, fx.Node) else None
        new = getattr(self.values.get(source), "shape", None) if isinstance(source, fx.Node) else None
        changed = next((i for i, (a, b) in enumerate(zip(old or (), new or (), strict=False)) if a != b), None)
        if node.target in VIEWS and changed is not None:
            self._view(node, old, changed, batch)
        elif node.target is aten.expand.default and old is not None:
            self._expand(node, old, changed, batch)
        elif node.target in FACTORIES:
            place = 1 if node.users and all(user.target in RECURRENT for user in node.users) else 0
            self._enter(node, FACTORIES[node.target], place, batch)
        elif node.target is aten.repeat.default and changed is None:
            self._enter(node, 1, 0, batch)
        elif node.target is aten.slice.Tensor and changed is not None:
            ends = len(node.args) > 3 and node.args[3] == old[changed]  # type: ignore[index] # noqa: PLR2004 - its end
            if ends and node.args[1] in (changed, changed - len(old)):  # type: ignore[arg-type]
                node.update_arg(3, sys.maxsize)

    def _view(self, node: fx.Node, old: Any, changed: int, batch: int) -> None:  # noqa: ANN401 - a shape
        """Give the batch the place in the new shape that it has among the elements of the old one.

        It is kept by the elements that one sample's step skips, as views keep the order of elements: (6, 2, 10) of 2
        samples has 10, as (12, 10) has, whose first dimension then holds 6 x 2 and no other.
        """
        given = list(node.args[1])  # type: ignore[arg-type]
        made = node.meta["shape"]
        if any(isinstance(entry, fx.Node) for entry in given):
            return
        step = math.prod(old[changed + 1 :]) * _inner(node.all_input_nodes[0], old[changed], batch)
        fits = [i for i in range(len(made)) if math.prod(made[i + 1 :]) <= step <= math.prod(made[i:]) // batch]
        if not fits:
            return
        # For a batch of one several places fit: the one that begins a sample's step, and holds one, comes first.
        fits.sort(key=lambda i: (math.prod(made[i + 1 :]) != step, made[i] != batch, i != changed))
        view = (tuple(old), changed, tuple(made))
        if len(fits) > 1:
            self.open[view] = len(fits)
        place = fits[self.choices.get(view, 0)]
        node.meta["inner"] = step // math.prod(made[place + 1 :])
        if given[place] != -1:
            given[place] = self._times(node, made[place] // batch)
            node.update_arg(1, given)

    def _expand(self, node: fx.Node, old: Any, changed: int | None, batch: int) -> None:  # noqa: ANN401 - a shape
        given = list(node.args[1])  # type: ignore[arg-type]
        if changed is not None:
            given[changed + len(given) - len(old)] = -1
            node.update_arg(1, given)
        elif given and given[0] == batch and (len(given) > len(old) or old[0] == 1):
            given[0] = self.size
            node.update_arg(1, given)

    def _enter(self, node: fx.Node, argument: int, place: int, batch: int) -> None:
        given = list(node.args[argument])  # type: ignore[arg-type]
        if place < len(given) and given[place] == batch:
            given[place] = self.size
            node.update_arg(argument, given)

    def _times(self, node: fx.Node, factor: int) -> fx.Node:
        """Return a node for `factor` times the batch, its value known to this pass."""
        if self.size is None:
            raise AssertionError("sizes are rewritten only where the batch is known")
        if factor == 1:
            return self.size
        with node.graph.inserting_before(node):
            product = node.graph.call_function(operator.mul, (self.size, factor))
        self.values[product] = self.values[self.size] * factor
        return product


def _check_states(node: fx.Node, inputs: Tensor, states: Any) -> None:  # noqa: ANN401 - one tensor or two
    """Raise CannotCompress where a recurrent operator's states are of another batch: it would read past their end."""
    began = states[0] if isinstance(states, (list, tuple)) else states
    if began.shape[1] not in inputs.shape[:2]:
        raise CannotCompress(f"{node.name} ({node.target}), whose initial state is fixed")


def _inner(node: fx.Node, extent: int, batch: int) -> int:
    """Return the entries that a sample takes in the dimension of `extent` that holds the batch."""
    return 1 if extent == batch else int(node.meta.get("inner", 1))
