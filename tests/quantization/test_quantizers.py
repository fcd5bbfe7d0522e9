"""The quantizers of linear-heavy models: what their files hold, what they answer, what they weigh."""

from __future__ import annotations

import copy
import functools
import json
import math
import sys
from typing import TYPE_CHECKING, Any

import nets
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from easycompress.artifact.onnx_export import export
from easycompress.artifact.slim import slim
from easycompress.artifact.write import write_model
from easycompress.core.errors import BadInput
from easycompress.core.inputs import Bundle
from easycompress.measure.runtime import Runtime
from easycompress.quantization.blocks import packed, quantize_blocks
from easycompress.quantization.dynamic import DynamicQuantizer
from easycompress.quantization.graph import _Reader
from easycompress.quantization.half import HalfPrecision, _converter
from easycompress.quantization.mixed import divergence, harms_of, most_sensitive, rounded
from easycompress.quantization.processor import lacks_vnni
from easycompress.quantization.settings import DynamicInt8, Float16, StaticInt8, WeightOnly
from easycompress.quantization.technique import QUANTIZED, StaticQuantizer
from easycompress.quantization.weightonly import BlockQuantizer
from easycompress.quantization.weights import Found

sys.path.insert(0, __file__.rpartition("/")[0])
import transformer

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.plan import Action
    from easycompress.technique import Applied

ACTIONS: dict[str, tuple[Any, Action]] = {
    "static": (StaticQuantizer(), StaticInt8(reduce_range=False)),
    "static-reduced": (StaticQuantizer(), StaticInt8(reduce_range=True)),
    "static-mixed": (StaticQuantizer(), StaticInt8(keep_float=2, float_layers=("output",), reduce_range=False)),
    "dynamic": (DynamicQuantizer(), DynamicInt8(reduce_range=False)),
    "dynamic-reduced": (DynamicQuantizer(), DynamicInt8(reduce_range=True)),
    "blocks-8": (BlockQuantizer(), WeightOnly()),
    "blocks-4": (BlockQuantizer(), WeightOnly(bits=4)),
    "blocks-4-zero-points": (BlockQuantizer(), WeightOnly(bits=4, symmetric=False)),
    "blocks-8-zero-points": (BlockQuantizer(), WeightOnly(bits=8, symmetric=False, block=64)),
    "blocks-4-wide": (BlockQuantizer(), WeightOnly(bits=4, wide=0.5)),
    "float16": (HalfPrecision(), Float16()),
}

each = pytest.mark.parametrize("name", ACTIONS)


@functools.cache
def made(name: str) -> tuple[Applied, onnx.ModelProto]:
    """Return what was applied to the transformer and its file."""
    technique, action = ACTIONS[name]
    result = technique.apply(copy.deepcopy(transformer.model()), action, transformer.context())
    return result, slim(result.file_pass(export(result.model, transformer.sentences(2))))


def run(proto: onnx.ModelProto, ids: torch.Tensor, *, optimised: bool = True) -> torch.Tensor:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: ids.numpy()})[0])


def stored(proto: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in proto.graph.initializer}


@each
def test_the_file_runs_and_answers_nearly_as_the_original(name: str) -> None:
    proto = made(name)[1]
    onnx.checker.check_model(proto)
    assert {opset.domain for opset in proto.opset_import} == {""}  # nothing but standard operators
    ids = transformer.sentences(40, 5)
    with torch.no_grad():
        expected = transformer.model()(ids)
    answers = run(proto, ids)
    allowed = 0.25 if "4" in name else 0.08 if name != "float16" else 0.01
    assert answers.dtype == torch.float32
    assert 0 < float((answers - expected).norm() / expected.norm()) < allowed


@pytest.mark.parametrize("name", [name for name in ACTIONS if name.startswith("blocks") or name == "float16"])
def test_the_file_computes_with_the_modules_weights(name: str) -> None:
    result, proto = made(name)
    ids = transformer.sentences(40, 5)
    with torch.no_grad():
        expected = result.model(ids)
    exact = run(proto, ids, optimised=False)
    assert torch.allclose(exact, expected, atol=2e-3 if name == "float16" else 2e-5)


@pytest.mark.parametrize("name", [name for name in ACTIONS if name.startswith(("static", "dynamic"))])
def test_the_file_holds_the_very_integers_of_the_codes(name: str) -> None:
    result, proto = made(name)
    arrays = [numpy_helper.to_array(t) for t in proto.graph.initializer if t.data_type == TensorProto.INT8]
    assert result.codes
    for weight, code in result.codes.items():
        values = code.arrays()["values"].numpy()
        assert any(np.array_equal(values, array) or np.array_equal(values.T, array) for array in arrays), weight


@pytest.mark.parametrize("name", ["static", "dynamic"])
def test_the_reduced_range_keeps_products_within_16_bits(name: str) -> None:
    for reduce, most in ((False, 127), (True, 64)):
        result, _ = made(f"{name}-reduced" if reduce else name)
        assert result.record["reduce_range"] is reduce
        largest = {w: int(c.arrays()["values"].abs().max()) for w, c in result.codes.items()}
        assert largest.pop("words.weight") == 127  # rows that are looked up, not multiplied
        assert set(largest.values()) == {most}
    assert 2 * 255 * 64 <= 2**15 - 1


@each
def test_records_are_json_and_say_what_was_decided(name: str) -> None:
    record = json.loads(json.dumps(made(name)[0].record, allow_nan=False))
    assert "folded" in record
    if name.startswith("static"):
        assert len(record["float_layers"]) == (3 if name == "static-mixed" else 0)
    if name == "blocks-4-wide":
        assert len(record["wide"]) == 3


def test_bytes_shrink_as_they_should() -> None:
    def weights(proto: onnx.ModelProto) -> int:
        return sum(len(t.raw_data) for t in proto.graph.initializer)

    full = weights(slim(transformer.graph()))
    table, total = transformer.WORDS * transformer.WIDTH, full // 4
    matrices = sum(p.numel() for n, p in transformer.model().named_parameters() if p.dim() == 2) - table
    rest = 4 * (total - table - matrices)
    rows = transformer.WORDS * 4
    for name, bits in (("dynamic", 8), ("blocks-8", 8), ("blocks-4", 4)):
        expected = table + rows + matrices * bits / 8 + rest
        assert expected <= weights(made(name)[1]) < 1.25 * expected, name
    assert math.isclose(weights(made("float16")[1]), full / 2, rel_tol=0.02)
    assert weights(made("blocks-4")[1]) < weights(made("blocks-4-wide")[1]) < weights(made("blocks-8")[1])


@pytest.mark.parametrize("name", [name for name in ACTIONS if name != "float16"])
def test_the_table_of_words_is_there_once_and_in_integers(name: str) -> None:
    shape = (transformer.WORDS, transformer.WIDTH)
    tables = [t for t in made(name)[1].graph.initializer if tuple(t.dims) == shape]
    assert [t.data_type for t in tables] == [TensorProto.INT8]


def test_layers_that_stay_float_are_float_in_the_file() -> None:
    result, proto = made("static-mixed")
    layers = {n for n, m in result.model.named_modules() if isinstance(m, QUANTIZED)}
    floats = set(result.record["float_layers"])
    assert "output" in floats
    assert {f"{n}.weight" for n in layers - floats} == result.codes.keys() - {"words.weight"}
    kept = [numpy_helper.to_array(t) for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT]
    for name in layers:
        weight = transformer.model().get_submodule(name).weight.detach().numpy()
        present = any(np.array_equal(weight, k) or np.array_equal(weight.T, k) for k in kept if k.shape)
        assert present is (name in floats), name


def test_the_named_float_layers_must_exist() -> None:
    with pytest.raises(BadInput, match=r"^float_layers: 'magic' is no layer that is quantized; there are query, "):
        StaticQuantizer().apply(
            copy.deepcopy(transformer.model()), StaticInt8(float_layers=("magic",)), transformer.context()
        )


def test_harm_is_measured_a_layer_at_a_time_and_leaves_no_trace() -> None:
    model = copy.deepcopy(transformer.model())
    before = nets.state(model)
    weights = {name: model.get_submodule(name).weight.detach().clone() for name in ("query", "wide", "narrow")}
    weights["wide"] = torch.zeros_like(weights["wide"])
    harms = harms_of(model, weights, transformer.sentences(8), activations=False)
    assert harms["query"] == harms["narrow"] == 0 < harms["wide"]
    noisy = harms_of(model, weights, transformer.sentences(8), activations=True)
    assert min(noisy["query"], noisy["narrow"]) > 0
    assert most_sensitive(harms, 1) == ["wide"]
    assert most_sensitive({"b": 1.0, "a": 1.0, "c": 0.0}, 2) == ["a", "b"]
    assert nets.same_state(model.state_dict(), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_divergence_is_zero_for_equal_outputs_alone() -> None:
    scores = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert divergence(scores, scores + 3) == pytest.approx(0, abs=1e-6)  # the same probabilities
    assert divergence(scores, -scores) > 0.1
    assert divergence(scores[:, :1], scores[:, :1] + 1) == pytest.approx(1 / float(scores[:, 0].var(unbiased=False)))


def test_rounded_activations_hold_zero_and_256_levels() -> None:
    values = torch.cat([torch.zeros(1), torch.linspace(0.5, 3, 2000)])
    result = rounded(values)
    assert result[0] == 0
    assert len(result.unique()) <= 256
    assert float((result - values).abs().max()) <= 3 / 255 / 2 * 1.01


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [32, 64])
def test_blocks_round_to_the_nearest_level(bits: int, block: int, *, symmetric: bool) -> None:
    weight = torch.randn(5, 80, generator=torch.Generator().manual_seed(1))
    weight[2] = 0
    code = quantize_blocks(weight, bits=bits, block=block, symmetric=symmetric)
    assert code.levels.max() <= 2**bits - 1
    assert torch.equal(code.dense()[2], weight[2])
    error = (code.dense() - weight).abs().reshape(5, 80)
    step = code.scale.abs().repeat_interleave(block, 1)[:, :80]
    share = (error <= step * 0.5001).float().mean()
    assert share > (0.9 if symmetric else 0.999)  # symmetric blocks clip where that lowers the squared error
    assert float(error.square().mean()) < float(weight.square().mean()) * (0.01 if bits == 4 else 1e-4)


def test_nibbles_are_packed_lower_half_first() -> None:
    assert packed(torch.tensor([[1, 2, 15]], dtype=torch.uint8), 4) == bytes([0x21, 0x0F])
    assert packed(torch.tensor([[1, 2]], dtype=torch.uint8), 8) == bytes([1, 2])


def test_numbers_beyond_float16_are_refused_by_name() -> None:
    model = nets.make(nets.Mlp)
    with torch.no_grad():
        model.get_parameter("hidden2.bias")[0] = 1e6
    with pytest.raises(BadInput, match=r"^hidden2.bias holds numbers beyond 65504"):
        HalfPrecision().apply(model, Float16(), nets.context(nets.task(model)))


def test_float16_leaves_the_import_path_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime.transformers.float16", "onnxruntime.transformers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    before = list(sys.path)
    assert _converter().convert_float_to_float16
    assert sys.path == before


def test_a_model_without_linear_layers_is_refused_in_one_line() -> None:
    profile = nets.context(nets.task(nets.make(nets.Mlp))).profile.model_copy(update={"layers": (), "params": 0})
    reason = "the model has no linear layer; convolutions stay float, their integers are made for static int8"
    assert DynamicQuantizer().refuses(profile, DynamicInt8()) == f"dynamic int8: {reason}"
    assert BlockQuantizer().refuses(profile, WeightOnly()) == f"weight-only: {reason}"
    assert HalfPrecision().refuses(profile, Float16()) == "float16: the model has no weights"


def test_a_tied_weight_is_stored_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(64, 32)
            self.output = nn.Linear(32, 64, bias=False)
            self.output.weight = self.words.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.output(self.words(ids))

    model = nets.make(Tied)
    result = DynamicQuantizer().apply(model, DynamicInt8(reduce_range=False), transformer.context_of(model))
    assert result.file_pass is not None
    ids = transformer.sentences(2) % 64
    proto = slim(result.file_pass(export(result.model, ids)))
    assert sum(t.data_type == TensorProto.INT8 for t in proto.graph.initializer) == 1
    with torch.no_grad():
        expected = result.model(ids)
    assert float((run(proto, ids) - expected).norm() / expected.norm()) < 0.02


def test_calibration_feeds_every_input_by_name() -> None:
    bundle = Bundle((torch.arange(100), torch.ones(100, 3), torch.zeros(100)), ("a", "b", "unread"))
    reader = _Reader(["b", "a"], bundle)
    batches = list(iter(reader.get_next, None))
    assert [set(batch) for batch in batches] == [{"a", "b"}] * 2
    assert np.concatenate([batch["a"] for batch in batches]).tolist() == list(range(100))
    plain = _Reader(["x", "y"], Bundle((torch.zeros(2), torch.ones(2))))
    assert plain.get_next()["y"].tolist() == [1, 1]  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "machine", "lacks"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\n", "x86_64", False),
        ("flags : fpu avx2 avx_vnni\n", "AMD64", False),
        ("flags : fpu avx avx2 avx512f\n", "x86_64", True),
        ("", "x86_64", True),
        ("Features : fp asimd\n", "aarch64", False),
        ("", "arm64", False),
    ],
)
def test_what_the_processor_lacks(text: str, machine: str, *, lacks: bool) -> None:
    assert lacks_vnni(text, machine) is lacks


@pytest.mark.parametrize("lacks", [True, False])
def test_the_processor_decides_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch, *, lacks: bool) -> None:
    monkeypatch.setattr("easycompress.quantization.processor.lacks_vnni", lambda: lacks)
    model = nets.make(nets.Mlp)
    result = DynamicQuantizer().apply(model, DynamicInt8(), nets.context(nets.task(model)))
    assert result.record["reduce_range"] is lacks


def test_found_tells_shapes_and_values_apart() -> None:
    found = Found({"w": (torch.ones(2, 3), 1)})
    assert found.find(np.ones((2, 3), np.float32)) == ("w", 1)
    assert found.find(np.ones((3, 2), np.float32)) is None


def test_variants_spare_more_and_more_layers() -> None:
    assert [a.keep_float for a in StaticInt8().variants()] == [0, 0, 0, 1, 2, 4]
    assert [a.keep_float for a in StaticInt8(keep_float=2).variants()] == [2, 2, 2, 4]
    assert [(a.symmetric, a.wide) for a in WeightOnly(bits=4).variants()] == [
        (True, 0),
        (False, 0),
        (True, 0.25),
        (True, 0.5),
    ]
    assert WeightOnly(bits=8).variants() == (WeightOnly(),)


@pytest.mark.parametrize("net", [nets.LeNet, nets.BatchNormed, nets.Residual])
def test_float16_files_of_convolutional_nets_are_valid(net: type[nn.Module], tmp_path: Path) -> None:
    """The converter casts the input behind the convolution that reads it."""
    work = nets.task(nets.make(net))
    applied = HalfPrecision().apply(copy.deepcopy(work.model), Float16(), nets.context(work))
    assert applied.file_pass is not None
    path = write_model(applied.model, work.example, tmp_path / "half.onnx", [applied.file_pass], applied.codes)
    onnx.checker.check_model(onnx.load(str(path)), full_check=True)
    outputs = torch.from_numpy(Runtime(path, 1).run(nets.images(8)))
    with torch.no_grad():
        torch.testing.assert_close(outputs, applied.model(nets.images(8)), atol=2e-2, rtol=2e-2)
