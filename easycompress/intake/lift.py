"""A graph of aten operators -> a module of torch.nn layers under their original names, that compresses and trains on.

What comes in is what torch.export saved: operators that read weights by name. What goes out computes the same, and its
layers are real again: `conv1.weight` and the convolution that reads it become `conv1`, an nn.Conv2d, whose own
training flag decides about batch statistics and dropout. Operators without weights stay calls.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from easycompress.intake.lift_layers import GATES, Layer, Operator, aten, layer_of, only_first, weightless

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COUNTER = "num_batches_tracked"
"""Batch norm's own counter: the layer counts again by itself."""

HALVES = (torch.float16, torch.bfloat16)

MODES = ("training", "train")
"""Arguments that say whether a graph was taken in training."""


@dataclass
class _Homes:
    """Where each stored tensor is read from, and which layers stand where."""

    source: fx.GraphModule
    layers: dict[str, nn.Module]
    made: dict[Any, str]
    moved: dict[int, str]
    shared: dict[Any, Tensor]

    def value(self, node: fx.Node) -> Tensor | None:
        """Return the tensor that a node reads from the module, None for any other node."""
        if node.op != "get_attr":
            return None
        return self.tensor(str(node.target))

    def tensor(self, path: str) -> Tensor | None:
        """Return the tensor of this name; of those that share their memory, as tied weights do, always the same one."""
        found = _attribute(self.source, path)
        if not isinstance(found, Tensor):
            return None
        where = (found.data_ptr(), found.shape, found.stride(), found.dtype)
        return self.shared.setdefault(where, found) if found.numel() else found


def lift(source: fx.GraphModule, names: Mapping[int, str] | None = None) -> fx.GraphModule:
    """Return a module of layers that computes what `source`, in evaluation, computes.

    `source` reads its tensors by get_attr nodes, and its nodes' shapes are in `node.meta["shape"]` (see
    lift_batch.observe). Tensors are shared with it, not copied. `names` are better names of tensors, by id: the file's.
    """
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(source.graph, copied))
    for old, new in copied.items():
        new.meta = dict(old.meta)
    homes = _Homes(source, {}, {}, {}, {})
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        op = Operator(node, homes.value)
        _lift_one(op, homes, names or {})
    graph.eliminate_dead_code(_acts)
    root = _rooted(graph, homes, names or {})
    module = fx.GraphModule(root, graph, class_name="Exported")
    module.graph.lint()
    return module


def in_evaluation(source: fx.GraphModule) -> bool:
    """Make the operators of a graph compute as in evaluation; return whether any was taken in training.

    Changes `source`. Half precision written into the graph becomes float32, and checks of shapes are taken out: the
    lifted module is judged by its answers.
    """
    trained = False
    for node in list(source.graph.nodes):
        if node.op != "call_function":
            continue
        name = str(node.target)
        if "_assert" in name or name.startswith("aten.sym_constrain"):
            source.graph.erase_node(node)
            continue
        if node.target is aten.add_.Tensor and _reads_counter(node.args[0]):
            node.replace_all_uses_with(node.args[0])
            source.graph.erase_node(node)
            continue
        schema = getattr(node.target, "_schema", None)
        for place, argument in enumerate(schema.arguments if schema else ()):
            if argument.name in MODES and place < len(node.args) and node.args[place] is True and _has_statistics(node):
                node.update_arg(place, False)  # noqa: FBT003 - as the operator takes it
                trained = trained or "dropout" not in name
        node.args = map_aggregate(node.args, _widened)
        node.kwargs = map_aggregate(node.kwargs, _widened)
    for node in reversed(list(source.graph.nodes)):
        if node.op == "call_module" and not node.users:  # the guard on the inputs' shapes
            source.graph.erase_node(node)
    source.recompile()
    return trained


def _acts(node: fx.Node) -> bool:
    """Tell whether a node must stay although nothing reads it: it changes a tensor, or is the module's interface."""
    schema = getattr(node.target, "_schema", None)
    return node.op in ("placeholder", "output") or bool(schema is not None and schema.is_mutable)


def _has_statistics(node: fx.Node) -> bool:
    """Tell whether an operator can do without the batch's statistics: batch norm that keeps none can't."""
    return node.target is not aten.batch_norm.default or node.args[3] is not None


def _widened(value: Any) -> Any:  # noqa: ANN401 - any argument
    return torch.float32 if isinstance(value, torch.dtype) and value in HALVES else value


def _reads_counter(node: object) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr" and str(node.target).endswith(COUNTER)


def _lift_one(op: Operator, homes: _Homes, names: Mapping[int, str]) -> None:
    node = op.node
    plain = weightless(op)
    if plain is not None:
        path = _free(_stacked(node) or node.name, homes)
        homes.layers[path] = plain
        _swap(node, path, (node.args[0],))
        return
    layer = layer_of(op)
    if layer is None or (layer.first and not only_first(node)):
        return
    values = {own: homes.value(tensor) for own, tensor in layer.tensors.items()}
    if any(value is None or not value.is_floating_point() for value in values.values()):
        return
    key = (repr(layer.module), layer.transposed, tuple((own, id(value)) for own, value in values.items()))
    path = homes.made.get(key, "")
    if not path:
        path = _free(_named(node, layer, homes, names), homes)
        homes.made[key] = path
        homes.layers[path] = _filled(layer, values, homes, path)
    _swap(node, path, layer.inputs, first=layer.first, recurrent=layer.recurrent)


def _filled(layer: Layer, values: Mapping[str, Tensor | None], homes: _Homes, path: str) -> nn.Module:
    """Put the stored tensors themselves into the layer, so that what was shared stays shared."""
    module = layer.module
    for own, value in values.items():
        if value is None:
            continue
        if own in dict(module.named_buffers(recurse=False)):
            setattr(module, own, value.detach())
            continue
        stored = value
        if layer.transposed and own == "weight":
            stored = nn.Parameter(value.detach().t().contiguous())
        elif not isinstance(value, nn.Parameter):
            stored = nn.Parameter(value.detach())
        module.register_parameter(own, stored)  # type: ignore[arg-type]
        if stored is value:
            homes.moved.setdefault(id(value), f"{path}.{own}")
    if hasattr(module, COUNTER):
        module.num_batches_tracked = torch.zeros((), dtype=torch.long)
    if isinstance(module, nn.RNNBase):
        module._init_flat_weights()  # noqa: SLF001 - its list of weights was made of the empty ones
    return module.eval()


def _named(node: fx.Node, layer: Layer, homes: _Homes, names: Mapping[int, str]) -> str:
    """Return the path of the layer: the one that its weight's name says, the caller's own for a tied weight."""
    own, reader = next(iter(layer.tensors.items()))
    value = homes.value(reader)
    target = names.get(id(value), str(reader.target))
    stack = _stacked(node)
    if stack and value is not None and homes.tensor(f"{stack}.{own}") is value:
        return stack
    if target.endswith(f".{own}"):
        return target.removesuffix(f".{own}")
    return target.removesuffix(own).rstrip("_") or target  # in_proj_weight -> in_proj


def _stacked(node: fx.Node) -> str:
    """Return the path of the module whose forward called this operator, where the program tells."""
    stack = node.meta.get("nn_module_stack") or {}
    entry = list(stack.values())[-1] if stack else ("",)
    path = entry[0] if isinstance(entry, tuple) else ""
    return path if "@" not in path else path.partition("@")[0]


def _free(path: str, homes: _Homes) -> str:
    count, found = 1, path
    while found in homes.layers:
        count, found = count + 1, f"{path}_{count + 1}"
    return found


def _swap(node: fx.Node, path: str, inputs: Sequence[Any], *, first: bool = False, recurrent: bool = False) -> None:
    """Let the layer at `path` stand for a node."""
    graph = node.graph
    with graph.inserting_before(node):
        new = graph.call_module(path, tuple(inputs))
        new.meta = dict(node.meta)
        if recurrent:
            _unpack(node, new)
        elif first:
            for user in list(node.users):
                user.replace_all_uses_with(new)
                graph.erase_node(user)
        else:
            node.replace_all_uses_with(new)
    graph.erase_node(node)


def _unpack(node: fx.Node, new: fx.Node) -> None:
    """Let the readers of (output, h, c) read a recurrent layer's (output, (h, c)); a GRU's are the same."""
    graph, nested = node.graph, GATES[str(node.target).split(".")[1]] == GATES["lstm"]
    for user in list(node.users):
        place: Any = user.args[1]
        if place == 0 or not nested:
            user.replace_input_with(node, new)
            continue
        with graph.inserting_before(user):
            both = graph.call_function(operator.getitem, (new, 1))
        user.args = (both, place - 1)


def _rooted(graph: fx.Graph, homes: _Homes, names: Mapping[int, str]) -> nn.Module:
    """Return a module that holds every layer, and under their own names the tensors that operators still read."""
    root = nn.Module()
    for path in sorted(homes.layers):  # parents before children
        _place(root, path, homes.layers[path])
    for node in graph.nodes:
        if node.op != "get_attr":
            continue
        value = homes.value(node)
        if value is None:  # the graph of a block that torch keeps apart
            value = _attribute(homes.source, str(node.target))
        if isinstance(value, Tensor) and id(value) in homes.moved:
            node.target = homes.moved[id(value)]
            continue
        path = names.get(id(value), str(node.target))
        if isinstance(value, Tensor):
            while isinstance(_attribute(root, path), nn.Module):
                path = f"{path}_value"  # a layer took this name
            homes.moved[id(value)] = path
        node.target = path
        _place(root, path, value)
    return root.eval()


def _place(root: nn.Module, path: str, value: Any) -> None:  # noqa: ANN401 - a module or a tensor
    *parents, name = path.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            root.add_module(parent, nn.Module())
        root = getattr(root, parent)
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        root.register_buffer(name, value.detach())
    else:
        setattr(root, name, value)


def _attribute(module: nn.Module, path: str) -> Any:  # noqa: ANN401 - a module, a tensor or nothing
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part, None)
    return found
