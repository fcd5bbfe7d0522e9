from __future__ import annotations

import nets
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from easycompress.artifact.onnx_export import export
from easycompress.artifact.slim import NAME_SHARE, slim
from easycompress.measure.files import params

every_net = pytest.mark.parametrize("net", nets.NETS, ids=lambda n: n.__name__)


def run(proto: onnx.ModelProto, inputs: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]


def weight_bytes(proto: onnx.ModelProto) -> int:
    return sum(len(tensor.raw_data) for tensor in proto.graph.initializer)


@every_net
def test_outputs_are_the_same_bit_for_bit(net: type[nn.Module]) -> None:
    plain, inputs = nets.graph(net), nets.images(7)
    assert np.array_equal(run(slim(plain), inputs), run(plain, inputs))


@every_net
def test_the_result_passes_the_full_check(net: type[nn.Module]) -> None:
    onnx.checker.check_model(slim(nets.graph(net)), full_check=True)


@every_net
def test_what_the_runtime_does_not_read_is_gone(net: type[nn.Module]) -> None:
    proto = slim(nets.graph(net))
    assert (proto.producer_name, proto.producer_version, proto.doc_string) == ("easycompress", "", "")
    assert not proto.metadata_props
    assert not proto.graph.metadata_props
    assert not proto.graph.value_info
    assert not proto.functions
    for node in proto.graph.node:
        assert node.name == node.doc_string == ""
        assert not node.metadata_props
    text = proto.SerializeToString()
    assert not any(word in text for word in (b"pkg.torch", b"stack_trace", b"aten.", b"torch"))


@every_net
def test_little_is_left_beside_the_weights(net: type[nn.Module]) -> None:
    proto = slim(nets.graph(net))
    spare = len(proto.SerializeToString()) - weight_bytes(proto)
    assert spare < 150 + 60 * (len(proto.graph.node) + len(proto.graph.initializer))


def test_slimming_leaves_its_input_alone_and_is_idempotent() -> None:
    plain = nets.graph(nets.LeNet)
    before = plain.SerializeToString()
    once = slim(plain)
    assert plain.SerializeToString() == before
    assert slim(once).SerializeToString() == once.SerializeToString()


class LeNet5(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(self.conv1(x), 2)
        x = torch.max_pool2d(self.conv2(x), 2)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


def test_lenet5_weighs_at_most_4_kb_beyond_its_weights() -> None:
    model = LeNet5()
    proto = slim(export(model, torch.randn(2, 1, 28, 28)))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert params(proto) == count == 431_080
    assert 4 * count < len(proto.SerializeToString()) <= 4 * count + 4000
    names = {tensor.name for tensor in proto.graph.initializer}
    assert {"conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"} <= names
    assert "conv1.bias" not in names  # 80 bytes: its name would cost a quarter of them


@every_net
def test_names_stay_where_they_cost_little(net: type[nn.Module]) -> None:
    plain, proto = nets.graph(net), slim(nets.graph(net))
    kept = {tensor.name for tensor in proto.graph.initializer}
    for tensor in plain.graph.initializer:
        cheap = 2 * len(tensor.name) <= NAME_SHARE * 4 * int(np.prod(tensor.dims))
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            assert (tensor.name in kept) is cheap
    every = [name for node in proto.graph.node for name in node.output]
    assert len(every) == len(set(every))
    assert not kept & set(every)


class Windows(nn.Module):
    """Every setting of a window that could be mistaken for a default."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1, dilation=1),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2),
            nn.AvgPool2d(2, stride=1, padding=1, count_include_pad=True),
            nn.AvgPool2d(2, stride=1, padding=1, count_include_pad=False, ceil_mode=True),
            nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1),
            nn.Conv2d(3, 3, (1, 3), stride=(1, 2), padding=(0, 1)),
            nn.MaxPool2d(2, stride=1, dilation=2),
            nn.LeakyReLU(0.2),
            nn.ELU(0.7),
            nn.Softmax(dim=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_dropped_defaults_do_not_change_the_meaning() -> None:
    torch.manual_seed(0)
    model, inputs = Windows().eval(), torch.randn(3, 2, 15, 15)
    plain = export(model, inputs[:2])
    proto = slim(plain)
    assert np.array_equal(run(proto, inputs), run(plain, inputs))
    with torch.no_grad():
        assert np.allclose(run(proto, inputs), model(inputs).numpy(), atol=1e-5)
    attributes = [len(node.attribute) for node in proto.graph.node]
    assert sum(attributes) < sum(len(node.attribute) for node in plain.graph.node)


@pytest.mark.parametrize(
    ("alpha", "beta", "trans_a", "trans_b", "kept"),
    [(1.0, 1.0, 0, 0, 0), (0.5, 1.0, 0, 1, 2), (1.0, 2.0, 1, 0, 2), (0.5, 2.0, 1, 1, 4)],
)
def test_gemm_keeps_what_is_no_default(alpha: float, beta: float, trans_a: int, trans_b: int, kept: int) -> None:
    inputs = torch.randn(3, 3)
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32), "w")
    bias = numpy_helper.from_array(np.arange(3, dtype=np.float32), "b")
    node = helper.make_node("Gemm", ["x", "w", "b"], ["output"], alpha=alpha, beta=beta, transA=trans_a, transB=trans_b)
    plain = model_of([node], [weight, bias])
    proto = slim(plain)
    assert len(proto.graph.node[0].attribute) == kept
    assert np.array_equal(run(proto, inputs), run(plain, inputs))


def model_of(nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto], opset: int = 20) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def test_defaults_are_those_of_the_files_own_opset() -> None:
    """Softmax: axis 1 was the default until opset 12, and -1 is since."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["cube"]),
        helper.make_node("Softmax", ["cube"], ["output"], axis=-1),
    ]
    shape = numpy_helper.from_array(np.array([-1, 2, 3], dtype=np.int64), "shape")
    plain, inputs = model_of(nodes, [shape], opset=12), torch.randn(4, 3)
    assert np.array_equal(run(slim(plain), inputs), run(plain, inputs))


def test_equal_initializers_are_stored_once() -> None:
    values = np.arange(9, dtype=np.float32).reshape(3, 3)
    same = [numpy_helper.from_array(values, name) for name in ("one", "two")]
    other = [numpy_helper.from_array(values.reshape(9, 1).reshape(1, 9)[:, :3], "three")]
    unused = [numpy_helper.from_array(values, "four"), numpy_helper.from_array(values + 1, "five")]
    nodes = [
        helper.make_node("MatMul", ["x", "one"], ["first"]),
        helper.make_node("MatMul", ["first", "two"], ["second"]),
        helper.make_node("Add", ["second", "three"], ["output"]),
    ]
    plain, inputs = model_of(nodes, [*same, *other, *unused]), torch.randn(4, 3)
    proto = slim(plain)
    assert sorted(tuple(tensor.dims) for tensor in proto.graph.initializer) == [(1, 3), (3, 3)]
    assert np.array_equal(run(proto, inputs), run(plain, inputs))


def test_equal_bytes_of_another_shape_or_type_are_kept_apart() -> None:
    zeros = np.zeros(3, dtype=np.float32)
    tensors = [numpy_helper.from_array(zeros, "row"), numpy_helper.from_array(zeros.reshape(1, 3), "matrix")]
    tensors.append(numpy_helper.from_array(zeros.view(np.int32), "integers"))
    nodes = [
        helper.make_node("Add", ["x", "row"], ["first"]),
        helper.make_node("Add", ["first", "matrix"], ["second"]),
        helper.make_node("Cast", ["integers"], ["third"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["second", "third"], ["output"]),
    ]
    assert len(slim(model_of(nodes, tensors)).graph.initializer) == 3


def test_typed_fields_become_raw_bytes() -> None:
    bias = helper.make_tensor("bias", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    assert not bias.raw_data
    proto = slim(model_of([helper.make_node("Add", ["x", "bias"], ["output"])], [bias]))
    assert proto.graph.initializer[0].raw_data == np.array([1, 2, 3], dtype=np.float32).tobytes()


class Conditional(nn.Module):
    """Exports as an If, whose branches read tensors of the outer graph."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.shift = nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        return torch.cond(x.sum() > 0, lambda y, s: y + s, lambda y, s: y * s, (x, self.shift))


def test_branches_still_find_the_tensors_around_them() -> None:
    torch.manual_seed(0)
    model = Conditional().eval()
    proto = slim(export(model, torch.randn(2, 8)))
    assert any(node.op_type == "If" for node in proto.graph.node)
    onnx.checker.check_model(proto, full_check=True)
    signs = set()
    for seed in range(6):
        inputs = torch.randn(3, 8, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            signs.add(bool(model.fc(inputs).sum() > 0))
            assert np.allclose(run(proto, inputs), model(inputs).numpy(), atol=1e-5)
    assert signs == {True, False}
