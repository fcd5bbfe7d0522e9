"""A module that computes as its quantized file does, and can be trained."""

from __future__ import annotations

import copy
import operator
from typing import TYPE_CHECKING

import torch
from torch import fx, nn

from easycompress.artifact.onnx_export import traced
from easycompress.core.errors import CannotCompress
from easycompress.quantization.expand import columns, expand
from easycompress.quantization.fake import LEVELS, Activation, Rows, Weights
from easycompress.quantization.layout import Layout, read_layout
from easycompress.quantization.processor import reduced
from easycompress.quantization.technique import StaticQuantizer, in_groups
from easycompress.quantization.weights import limit_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from easycompress.quantization.settings import StaticInt8
    from easycompress.technique import Context

aten = torch.ops.aten

LAYERS = (
    aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.convolution.default, aten.linear.default,
    columns,
)  # fmt: skip
"""Operators called with (input, weight, bias), whose weight has its channels on axis 0, but for transposed ones."""

TRANSPOSED = 6
"""Place among the arguments of aten.convolution that tells whether it is a transposed one: channels on axis 1."""

SELECTING = (
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.view.default,
    aten.reshape.default,
    aten.transpose.int,
    aten.permute.default,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.slice.Tensor,
)
"""Operators that only pick and place values: what went in on a grid comes out on it."""


class Simulation:
    """`module` has the parameters of the model it was made from, under their names, and its grids as buffers."""

    def __init__(self, module: fx.GraphModule, activations: dict[str, Activation]) -> None:
        self.module, self.activations = module, activations

    def watch(self, steps: int) -> None:
        """Let the next `steps` training batches move the ranges of activations."""
        for activation in self.activations.values():
            activation.watch(steps)

    def ranges(self) -> dict[str, list[float]]:
        """Return [low, high] by the name of the tensor in the file."""
        return {name: [float(v) for v in a.range.tolist()] for name, a in self.activations.items()}

    def set_ranges(self, ranges: Mapping[str, list[float]]) -> None:
        """Put back what ranges() returned."""
        for name, (low, high) in ranges.items():
            self.activations[name].range.copy_(torch.tensor([low, high]))

    def grids(self) -> dict[str, tuple[float, int]]:
        """Return (scale, zero point) by the name of the tensor in the file."""
        return {name: activation.grid() for name, activation in self.activations.items()}


def simulate(model: nn.Module, action: StaticInt8, context: Context) -> Simulation:
    """Return a simulation of the file that static int8 makes of `model` with the settings of `action`.

    `model` is in evaluation mode, its batch norm folded; what of it is left keeps its statistics. Integers go where
    the runtime's quantizer puts them, with the ranges that its calibration finds. Raises CannotCompress, naming the
    operator, where those places aren't found.
    """
    rounded = StaticQuantizer().apply(copy.deepcopy(model), action, context)
    assert rounded.file_pass is not None  # noqa: S101 - the quantizer's part is in the graph
    exported = traced(rounded.model, context.task.example)
    proto = exported.model_proto
    if grouped := in_groups(proto):
        raise CannotCompress(
            f"qat-int8: the transposed convolution {grouped[0]} works in groups, which ONNX Runtime rounds in a way "
            "that training can't imitate; use static-int8"
        )
    layout = read_layout(rounded.file_pass(proto))
    if exported.exported_program is None:
        raise CannotCompress("qat-int8: the exporter keeps no trace of this model; use static-int8")
    module = _module(exported.exported_program, [value.name for value in proto.graph.input])
    state = model.state_dict()
    module.load_state_dict({name: state.get(name, value).clone() for name, value in module.state_dict().items()})
    names = _nodes_by_name(module.graph, proto)
    matrices = expand(module.graph, names, proto)
    limit = limit_of(reduce=reduced(action.reduce_range))
    return _Builder(module, names, layout, limit, matrices, frozenset(rounded.codes)).build(proto)


def _module(program: torch.export.ExportedProgram, names: Sequence[str]) -> fx.GraphModule:
    """Return a traced program as a module that takes the inputs `names`, in order or by keyword.

    It returns what the file does, a single output as it is.
    """
    module = program.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)  # noqa: S101 - torch's own promise
    graph = module.graph
    places = [node for node in graph.nodes if node.op == "placeholder"]
    for node, name in zip(places, names, strict=True):
        node.target = name
    results = _results(graph)
    graph.output_node().args = (results[0] if len(results) == 1 else tuple(results),)
    graph.set_codegen(fx.graph.CodeGen())  # instead of one that packs arguments as the traced forward did
    return module


def _results(graph: fx.Graph) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg(graph.output_node().args, found.append)
    return found


def _nodes_by_name(graph: fx.Graph, proto: onnx.ModelProto) -> dict[str, fx.Node]:
    """Return the node behind every value of the ONNX graph that has one."""
    names = {node.name: node for node in graph.nodes if node.op == "call_function"}
    places = [node for node in graph.nodes if node.op == "placeholder"]
    names |= {value.name: node for value, node in zip(proto.graph.input, places, strict=True)}
    return names | {value.name: node for value, node in zip(proto.graph.output, _results(graph), strict=False)}


class _Builder:
    """Rewrites the traced graph: first the activations, then the layers' weights, which depend on their inputs'."""

    def __init__(
        self,
        source: fx.GraphModule,
        names: dict[str, fx.Node],
        layout: Layout,
        limit: int,
        matrices: Mapping[str, str],
        coded: frozenset[str],
    ) -> None:
        self.source, self.graph, self.names, self.layout, self.limit = source, source.graph, names, layout, limit
        self.matrices, self.coded = matrices, coded
        self.activations: dict[str, Activation] = {}
        self.put: dict[fx.Node, Activation] = {}

    def build(self, proto: onnx.ModelProto) -> Simulation:
        """Return the finished simulation; `proto` is the graph before quantization."""
        makers = {name: node.op_type for node in proto.graph.node for name in node.output}
        for name, owner in self.layout.activations.items():
            node = self.names.get(name)
            if node is None or owner not in self.layout.activations:
                raise CannotCompress(
                    f"qat-int8: the runtime quantizes inside operator {makers.get(name, name)}, "
                    "which training can't imitate; use static-int8"
                )
            self._activation(node, name, owner)
        self._layers()
        self._tables()
        for node in self.graph.nodes:
            if node.target is aten.view.default:
                node.target = aten.reshape.default  # training may run in another memory order than tracing did
            if node.op == "call_module" and node.target == "_guards_fn":
                self.graph.erase_node(node)
        self.graph.eliminate_dead_code()
        self.graph.lint()
        module = fx.GraphModule(self.source, self.graph)
        return Simulation(module.eval(), self.activations)

    def _activation(self, node: fx.Node, name: str, owner: str) -> None:
        """Put the values of a node on their grid, for all that read them."""
        if owner not in self.activations:
            scale, zero = self.layout.grids[owner]
            rectified = self.names.get(owner) is not None and self.names[owner].target is aten.relu.default
            made = Activation(-zero * scale, (LEVELS - zero) * scale, rectified=rectified)
            self.activations[owner] = made
            self.source.add_module(f"grid_{len(self.activations)}", made)
        activation = self.activations[owner]
        self.put[node] = activation
        if name != owner and node.target in SELECTING:
            return
        place = f"grid_{list(self.activations).index(owner) + 1}"
        # A rectified grid cuts off below zero, so that the ReLU itself would be a second pass for nothing.
        skipped = activation.rectified and name == owner
        users = list(node.users)
        with self.graph.inserting_after(node):
            read = node.args[0] if skipped else node
            new = self.graph.call_module(place, (read,), {} if name == owner else {"watched": False})
        for user in users:
            user.replace_input_with(node, new)
        self.put[new] = activation

    def _layers(self) -> None:
        """Put the weights and biases of layers on their grids."""
        found: set[str] = set()
        for count, node in enumerate([n for n in self.graph.nodes if n.target in LAYERS]):
            weight, bias = node.args[1], node.args[2] if len(node.args) > 2 else None  # noqa: PLR2004 - x, weight, bias
            parameter = getattr(weight, "target", "")
            name = self.matrices.get(parameter, parameter)
            turned = node.target is aten.convolution.default and bool(node.args[TRANSPOSED])
            axis = int(turned or node.target is columns)
            if self.layout.weights.get(name) != (axis if name == parameter else 1):
                continue
            found.add(name)
            stored = isinstance(bias, fx.Node) and bias.target in self.layout.biases
            self.source.add_module(
                f"layer_{count}", Weights(self.limit, self.put.get(node.args[0]) if stored else None, axis)
            )
            with self.graph.inserting_before(node):
                both = self.graph.call_module(f"layer_{count}", (weight, bias))
                on_grid = [self.graph.call_function(operator.getitem, (both, place)) for place in (0, 1)]
            node.args = (node.args[0], on_grid[0], None if bias is None else on_grid[1], *node.args[3:])
        for name in self.layout.weights:
            if name not in found:
                raise CannotCompress(
                    f"qat-int8: the runtime quantizes {name}, no weight of a known layer; use static-int8"
                )

    def _tables(self) -> None:
        """Put the rows that are looked up in coded tables on their grids."""
        for count, node in enumerate([n for n in self.graph.nodes if n.target is aten.embedding.default]):
            if getattr(node.args[0], "target", None) not in self.coded:
                continue
            self.source.add_module(f"rows_{count}", Rows(self.limit))
            users = list(node.users)
            with self.graph.inserting_after(node):
                rows = self.graph.call_module(f"rows_{count}", (node,))
            for user in users:
                user.replace_input_with(node, rows)
