from __future__ import annotations

from typing import TYPE_CHECKING

import nets
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from easycompress.artifact.attach import attach_codes, own_names
from easycompress.artifact.fold import find_pairs, fold
from easycompress.artifact.onnx_export import export
from easycompress.artifact.slim import slim
from easycompress.codes.affine import quantize_per_channel
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive, Scaled
from easycompress.codes.hashed import Hashed
from easycompress.codes.lowrank import LowRank
from easycompress.codes.sparse import sparse_from
from easycompress.core.errors import CannotCompress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easycompress.codes.base import Code

DECODING = {"BitShift", "BitwiseAnd", "CumSum", "ScatterElements", "Gather", "MatMulInteger", "Split", "Expand", "Mod"}


def book(weight: Tensor, k: int) -> Codebook:
    """The nearest of k evenly spaced values."""
    entries = torch.linspace(float(weight.min()), float(weight.max()), k)
    return Codebook((weight[..., None] - entries).abs().argmin(-1).to(torch.uint8), entries)


def corrected(weight: Tensor) -> Code:
    coarse = book(weight, 2)
    rest = weight - coarse.dense()
    return Additive((coarse, sparse_from(rest, rest.abs() > rest.abs().quantile(0.9))))


def factors(weight: Tensor) -> LowRank:
    left, values, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    return LowRank((left[:, :2] * values[:2]).half(), right[:2].half(), tuple(weight.shape))


FORMS: dict[str, Callable[[Tensor], Code]] = {
    "codebook": lambda w: book(w, 4),
    "ternary": lambda w: book(w, 3),
    "sparse": lambda w: sparse_from(w, w.abs() > w.abs().median()),
    "sum": corrected,
    "hashed": lambda w: Hashed(torch.linspace(-0.5, 0.5, 17), tuple(w.shape)),
    "int8": quantize_per_channel,
    "low rank": factors,
    "scaled": lambda w: Scaled(book(w, 4), torch.linspace(0.5, 1.5, len(w))),
}


def encode(model: nn.Module, make: Callable[[Tensor], Code]) -> dict[str, Code]:
    """Code every weight of at least two dimensions, and put the coded values into the module."""
    codes: dict[str, Code] = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                codes[name] = make(parameter.detach().clone())
                parameter.copy_(codes[name].dense())
    return codes


def optimised(proto: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "folded.onnx")
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(str(folder / "folded.onnx"))


def run(proto: onnx.ModelProto, inputs: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]


def initializers(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


class Sequences(nn.Module):
    """Linear layers on (N, T, C): MatMuls with transposed weights under made-up names."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 24)
        self.outer = nn.Linear(24, 8, bias=False)
        self.output = nn.Linear(8, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.squeeze(1)
        return self.output((x + self.outer(torch.relu(self.inner(x)))).mean(1))


class Tied(nn.Module):
    """One weight, used directly by two layers, and transposed by a third."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.second = nn.Linear(64, 64, bias=False)
        self.second.weight = self.first.weight
        self.output = nn.Linear(64, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x.flatten(1)))))
        return self.output(functional.linear(x.unsqueeze(1), self.first.weight).squeeze(1))


class Mixed(nn.Module):
    """Convolutions, grouped too, linear layers on (N, C) and on (N, T, C), and a weight that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 12, 3, groups=2)
        self.tokens = nn.Linear(36, 20, bias=False)
        self.square = nn.Linear(20, 20)
        self.again = nn.Linear(20, 20)
        self.again.weight = self.square.weight
        self.output = nn.Linear(20, nets.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv2(torch.relu(self.conv1(x)))).flatten(2)
        x = torch.relu(self.tokens(x)).mean(1)
        return self.output(self.again(torch.relu(self.square(x))))


@pytest.mark.parametrize(
    ("net", "form"),
    [*((Mixed, form) for form in FORMS), (nets.Mlp, "sum"), (nets.LeNet, "sum"), (Sequences, "sum"), (Tied, "sum")],
)
def test_the_coded_file_answers_as_the_dense_one(net: type[nn.Module], form: str, tmp_path: Path) -> None:
    model = nets.make(net)
    codes = encode(model, FORMS[form])
    plain, inputs = export(model, nets.images(2)), nets.images(5)
    before = plain.SerializeToString()
    proto = slim(attach_codes(plain, codes))
    assert plain.SerializeToString() == before
    onnx.checker.check_model(proto, full_check=True)
    answers, expected = run(proto, inputs), run(slim(plain), inputs)
    if form == "low rank":
        assert np.allclose(answers, expected, atol=1e-5)
    else:
        assert np.array_equal(answers, expected)
    assert not DECODING & {node.op_type for node in optimised(proto, tmp_path).graph.node}
    left = {array.shape for array in initializers(proto).values() if array.dtype == np.float32}
    assert not left & {shape for code in codes.values() for shape in (code.shape, code.shape[::-1])}


def test_weights_keep_their_names_and_everything_else_its_place() -> None:
    model = nets.make(nets.LeNet)
    codes = encode(model, FORMS["codebook"])
    plain = export(model, nets.images(2))
    proto = attach_codes(plain, codes)
    made = {name for node in proto.graph.node for name in node.output}
    assert set(codes) <= made
    assert not set(codes) & set(initializers(proto))
    kept = {name: array for name, array in initializers(plain).items() if name not in codes}
    assert all(np.array_equal(initializers(proto)[name], array) for name, array in kept.items())
    tail = list(proto.graph.node)[-len(plain.graph.node) :]
    assert [node.SerializeToString() for node in tail] == [node.SerializeToString() for node in plain.graph.node]
    assert proto.graph.input == plain.graph.input
    assert proto.graph.output == plain.graph.output


def test_only_the_codes_that_are_given_are_attached() -> None:
    model = nets.make(nets.LeNet)
    codes = encode(model, FORMS["codebook"])
    plain = export(model, nets.images(2))
    proto = attach_codes(plain, {"fc1.weight": codes["fc1.weight"]})
    assert set(initializers(plain)) - set(initializers(proto)) == {"fc1.weight"}
    assert attach_codes(plain, {}).SerializeToString() == plain.SerializeToString()


def test_a_transposed_weight_is_found_by_content_and_named() -> None:
    model = nets.make(Sequences)
    codes = encode(model, FORMS["codebook"])
    plain = export(model, nets.images(2))
    assert "inner.weight" not in initializers(plain)
    proto = attach_codes(plain, codes)
    producers = {name: node for node in proto.graph.node for name in node.output}
    turned = [node for node in proto.graph.node if node.op_type == "Transpose" and node.input[0] in codes]
    assert {node.input[0] for node in turned} == {"inner.weight", "outer.weight"}
    assert all(node.output[0] in initializers(plain) for node in turned)
    assert set(codes) <= set(producers)


def test_tied_weights_are_stored_once() -> None:
    model = nets.make(Tied)
    codes = encode(model, FORMS["codebook"])
    assert set(codes) == {"first.weight", "output.weight"}
    proto = attach_codes(export(model, nets.images(2)), codes)
    assert [tensor.data_type for tensor in proto.graph.initializer].count(onnx.TensorProto.UINT8) == 4  # shared
    assert max(array.size for array in initializers(proto).values()) < 2000
    both = attach_codes(export(model, nets.images(2)), codes | {"second.weight": codes["first.weight"]})
    assert len(both.SerializeToString()) <= len(proto.SerializeToString()) + 20


def test_batch_norm_is_scaled_into_the_code() -> None:
    model = nets.make(nets.BatchNormed)
    codes = encode(model, FORMS["codebook"])
    pairs = find_pairs(model, nets.images(2))
    with torch.no_grad():
        for layer, norm in pairs:
            name, module = f"{layer}.weight", model.get_submodule(norm)
            scale = module.weight * torch.rsqrt(module.running_var + module.eps)  # type: ignore[operator,union-attr]
            codes[name] = Scaled(codes[name], scale.detach())
        fold(model, pairs)
    plain = export(model, nets.images(2))
    assert {layer for layer, _ in pairs} == {"features.0", "features.4", "hidden"}
    assert np.array_equal(run(slim(attach_codes(plain, codes)), nets.images(3)), run(slim(plain), nets.images(3)))


def test_other_values_than_the_codes_are_refused() -> None:
    model = nets.make(nets.LeNet)
    codes = encode(model, FORMS["codebook"])
    with torch.no_grad():
        model.fc1.weight[3, 2] += 1e-6  # type: ignore[index,operator,union-attr]
    with pytest.raises(CannotCompress, match=r"^fc1\.weight: the exported graph holds this weight with other values"):
        attach_codes(export(model, nets.images(2)), codes)


def test_other_low_rank_values_than_rounding_explains_are_refused() -> None:
    model = nets.make(nets.LeNet)
    codes = encode(model, FORMS["low rank"])
    with torch.no_grad():
        model.fc1.weight[3, 2] += 1e-3  # type: ignore[index,operator,union-attr]
    with pytest.raises(CannotCompress, match=r"^fc1\.weight: the exported graph holds this weight with other values"):
        attach_codes(export(model, nets.images(2)), codes)


def test_a_folded_batch_norm_is_named_as_a_cause() -> None:
    model = nets.make(nets.BatchNormed)
    codes = encode(model, FORMS["codebook"])
    with pytest.raises(CannotCompress, match=r"^features\.0\.weight: .*fold batch norm into the layer"):
        attach_codes(export(model, nets.images(2)), codes)


def test_a_weight_that_the_graph_does_not_hold_is_refused() -> None:
    model = nets.make(nets.LeNet)
    codes = encode(model, FORMS["codebook"])
    text = r"^fc9\.weight: the exported graph holds no tensor with this weight's values"
    with pytest.raises(CannotCompress, match=text):
        attach_codes(export(model, nets.images(2)), codes | {"fc9.weight": book(torch.randn(4, 5), 2)})


def test_a_code_that_contradicts_itself_is_refused() -> None:
    model = nets.make(nets.LeNet)
    codes = encode(model, FORMS["codebook"])

    class Lying(Codebook):
        def dense(self) -> Tensor:
            return super().dense() + 1

    inner = codes["fc1.weight"]
    assert isinstance(inner, Codebook)
    lying = Lying(inner.indices, inner.entries)
    with torch.no_grad():
        model.fc1.weight.copy_(lying.dense())  # type: ignore[operator,union-attr]
    with pytest.raises(CannotCompress, match=r"^fc1\.weight: the file would rebuild other values than the code's"):
        attach_codes(export(model, nets.images(2)), codes | {"fc1.weight": lying})


class Conditional(nn.Module):
    """Exports as an If, whose branches read the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 64)
        self.shift = nn.Parameter(torch.randn(64, 64))

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x.flatten(1))
        return torch.cond(x.sum() > 0, lambda y, s: y @ s, lambda y, s: y - y @ s, (x, self.shift))


def test_branches_find_the_rebuilt_weights() -> None:
    model = nets.make(Conditional)
    codes = encode(model, FORMS["codebook"])
    plain = export(model, nets.images(2))
    proto = slim(attach_codes(plain, codes))
    assert max(array.size for array in initializers(proto).values()) < 2100
    for seed in range(4):
        inputs = nets.images(3, seed)
        assert np.array_equal(run(proto, inputs), run(slim(plain), inputs))


@pytest.mark.parametrize("net", [Sequences, Tied])
def test_own_names_gives_every_coded_weight_its_parameters_name(net: type[nn.Module]) -> None:
    model = nets.make(net)
    codes = encode(model, FORMS["codebook"])
    plain = export(model, nets.images(2))
    assert not codes.keys() <= initializers(plain).keys()
    named = own_names(plain, codes)
    stored = initializers(named)
    assert all(np.array_equal(stored[name], code.dense().numpy()) for name, code in codes.items())
    assert sum(array.size for array in stored.values()) <= sum(array.size for array in initializers(plain).values())
    assert np.array_equal(run(slim(named), nets.images(3)), run(slim(plain), nets.images(3)))
    kept = slim(named, keep=frozenset(codes))
    assert np.array_equal(run(slim(attach_codes(kept, codes)), nets.images(3)), run(slim(plain), nets.images(3)))


def test_one_code_for_two_weights_is_stored_once() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(torch.relu(self.one(x.flatten(1))))

    model = nets.make(Twins)
    code = book(model.get_parameter("one.weight").detach(), 4)
    with torch.no_grad():
        for name in ("one.weight", "two.weight"):
            model.get_parameter(name).copy_(code.dense())
    plain = export(model, nets.images(2))
    assert {"one.weight", "two.weight"} <= initializers(plain).keys()
    proto = slim(attach_codes(plain, {"one.weight": code, "two.weight": code}))
    once = slim(attach_codes(plain, {"one.weight": code}))
    assert len(proto.SerializeToString()) == pytest.approx(len(once.SerializeToString()), abs=40)
    assert np.array_equal(run(proto, nets.images(3)), run(slim(plain), nets.images(3)))


class Positions(nn.Module):
    """Adds the first rows of a table to shorter texts, as BERT adds positions."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.out = nn.Embedding(9, 4), nn.Embedding(32, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.out((self.words(ids) + self.places(torch.arange(2, 2 + ids.shape[1]))).mean(1))
        return found


def test_rows_of_a_table_that_export_cut_out_stay_on_the_codes_levels() -> None:
    torch.manual_seed(0)
    model = Positions().eval()
    names = ["words.weight", "places.weight", "out.weight"]
    codes: dict[str, Code] = {name: book(model.get_parameter(name).detach(), 4) for name in names}
    for name, code in codes.items():
        model.get_parameter(name).data.copy_(code.dense())
    ids = torch.randint(9, (4, 6))
    proto = attach_codes(export(model, ids), codes)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    given = session.run(None, {proto.graph.input[0].name: ids.numpy()})[0]
    assert np.allclose(given, model(ids).detach().numpy(), atol=1e-6)
    assert "words.weight" not in {tensor.name for tensor in proto.graph.initializer}
    codes["places.weight"] = book(torch.randn(32, 4), 4)
    with pytest.raises(CannotCompress, match=r"^places\.weight: the exported graph holds"):
        attach_codes(export(model, ids), codes)
