from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import easycompress as ec
from easycompress.artifact import large as large_files
from easycompress.artifact.external import bytes_of, copy_graph, data_of, parameter_of
from easycompress.artifact.large import (
    copied,
    describe_large,
    is_large,
    named_graph,
    original_of,
    own_weights,
    shell,
    write_large,
    write_state,
)
from easycompress.artifact.onnx_export import export
from easycompress.artifact.write import write_model
from easycompress.assemble import make_the_task
from easycompress.carry import make_workshop
from easycompress.core import large
from easycompress.core.errors import BadInput, CannotCompress
from easycompress.core.progress import Silent
from easycompress.core.request import Request
from easycompress.executor.build import build
from easycompress.executor.journal import open_journal
from easycompress.intake.task import copied as copied_in
from easycompress.measure.modules import Module
from easycompress.measure.profile import profile
from easycompress.measure.runtime import Runtime, scores_of
from easycompress.prepare import prepare
from easycompress.quantization.blocks import quantize_blocks
from easycompress.quantization.compact import BlockLinear
from easycompress.quantization.settings import WeightOnly
from easycompress.technique import Context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easycompress.prepare import Prepared

WORDS, WIDTH, LENGTH = 96, 64, 12

ALL = 1
"""A limit that everything exceeds."""


class Words(nn.Module):
    """A language model in small: a table, a block of two layers, scores of every word."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 128), nn.Linear(128, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, words: Tensor) -> Tensor:
        hidden = self.embed(words)
        return self.head(hidden + self.down(torch.relu(self.up(self.norm(hidden)))))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def model() -> Words:
    """Return a model that no test changes: its graph is exported once."""
    torch.manual_seed(1)
    return Words().eval()


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "LARGE_BYTES", ALL)


def words(count: int = 2) -> Tensor:
    return torch.randint(0, WORDS, (count, LENGTH), generator=torch.Generator().manual_seed(3))


def answers(path: Path, inputs: Tensor) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    result: np.ndarray[Any, Any] = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]
    return result


def run(model: nn.Module, folder: Path, **more: Any) -> ec.Result:
    flags = {"objective": "size", "target": "5x", "max_drop": "50%rel", "budget": "none", "metric": "perplexity"}
    return ec.compress(model, test=(words(64), words(64)), out=folder / "out", **(flags | more))


def prepared_for(model: nn.Module, folder: Path) -> tuple[Prepared, Request]:
    """Return what a run that no rounding is good enough for begins with."""
    request = Request(model="words", objective="size", target="2x", max_drop="0", budget="none", metric="fidelity")
    return prepare(make_the_task(model, request, folder, (None, None, words(64))), request, folder), request


def recipe(folder: Path, step: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(f"steps:\n- {step}\n")
    return str(path)


def test_a_model_is_large_by_the_bytes_of_its_weights(model: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert large.weight_bytes(model) == weights
    monkeypatch.setattr(large, "LARGE_BYTES", weights)
    assert is_large(model)
    monkeypatch.setattr(large, "LARGE_BYTES", weights + 1)
    assert not is_large(model)
    assert large.weight_bytes(Words(tied=True)) == weights - 4 * WORDS * WIDTH


def test_a_shell_shares_values_and_nothing_else(model: Words) -> None:
    made = shell(model)
    assert original_of(made) is model
    assert original_of(shell(made)) is model
    assert made.head.weight.data_ptr() == model.head.weight.data_ptr()  # type: ignore[operator,union-attr]
    made.requires_grad_(requires_grad=False)
    made.up = nn.Identity()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert isinstance(model.up, nn.Linear)
    own_weights(made)
    with torch.no_grad():
        made.head.weight.zero_()  # type: ignore[operator,union-attr]
    assert model.head.weight.abs().sum() > 0


@pytest.mark.parametrize("tied", [False, True])
def test_a_shell_keeps_ties(*, tied: bool) -> None:
    made = shell(Words(tied=tied))
    assert (made.head.weight is made.embed.weight) == tied


def test_only_large_models_are_copied_as_shells(model: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    assert copied(model).get_parameter("head.weight").data_ptr() != model.head.weight.data_ptr()
    assert copied_in(model).get_parameter("head.weight").data_ptr() != model.head.weight.data_ptr()
    monkeypatch.setattr(large, "LARGE_BYTES", ALL)
    assert copied(model).get_parameter("head.weight").data_ptr() == model.head.weight.data_ptr()
    taken = copied_in(model)
    assert taken.get_parameter("head.weight").data_ptr() == model.head.weight.data_ptr()
    assert original_of(taken) is None


def test_a_graph_names_its_weights(model: Words) -> None:
    graph = named_graph(model, words())
    named = {parameter_of(tensor) for tensor in graph.graph.initializer} - {None}
    assert named == {"embed.weight", "up.weight", "down.weight", "head.weight"}
    assert graph.ByteSize() < 4 * WORDS * WIDTH


def test_a_graph_is_exported_once(model: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    first = named_graph(model, words())
    monkeypatch.setattr(large_files, "traced", None)
    second = named_graph(model, words())
    assert second == first
    assert second is not first


def test_the_profile_is_that_of_the_whole_graph(model: Words) -> None:
    plain = profile(model, export(model, words()), (LENGTH,), WORDS)
    assert profile(model, named_graph(model, words()), (LENGTH,), WORDS) == plain
    assert plain.macs == LENGTH * (2 * WIDTH * 128 + WIDTH * WORDS)


@pytest.mark.parametrize("net", [Words, lambda: Words(tied=True)], ids=["plain", "tied"])
@pytest.mark.usefixtures("everything_is_large")
def test_counted_bytes_are_those_of_the_files(net: Callable[[], nn.Module], tmp_path: Path) -> None:
    model = net().eval()
    described = tmp_path / "described" / "model.onnx"
    counted = describe_large(model, words(), described)
    assert not data_of(described).exists()
    path = write_model(model, words(), tmp_path / "model.onnx")
    assert data_of(path).stat().st_size > large.weight_bytes(model) - 4 * 400
    assert counted == path.stat().st_size + data_of(path).stat().st_size == bytes_of(path)
    assert described.read_bytes() == path.read_bytes()
    np.testing.assert_allclose(answers(path, words(5)), model(words(5)).detach().numpy(), rtol=0, atol=1e-5)


def test_what_fits_is_one_file_and_the_usual_one(model: Words, tmp_path: Path) -> None:
    usual = write_model(model, words(), tmp_path / "usual.onnx")
    path = tmp_path / "model.onnx"
    write_large(model, words(), path, apart=True)
    assert data_of(path).exists()
    write_large(model, words(), path)
    assert not data_of(path).exists()
    assert bytes_of(path) == path.stat().st_size == usual.stat().st_size
    np.testing.assert_array_equal(answers(path, words(5)), answers(usual, words(5)))


def test_a_graph_is_copied_with_its_data(model: Words, tmp_path: Path) -> None:
    source = write_large(model, words(), tmp_path / "source.onnx", apart=True)
    target = tmp_path / "new" / "target.onnx"
    target.parent.mkdir()
    copy_graph(source, target)
    expected = answers(source, words())
    source.unlink()
    data_of(source).unlink()
    np.testing.assert_array_equal(answers(target, words()), expected)


def test_a_full_disk_is_said_in_one_line(model: Words, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="can't be written"):
        write_large(model, words(), tmp_path / "file" / "model.onnx", apart=True)


def test_a_state_is_written_with_ties(tmp_path: Path) -> None:
    model, other = Words(tied=True), Words()
    write_state(model, tmp_path / "model.safetensors")
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    torch.testing.assert_close(other(words()), model(words()), rtol=0, atol=0)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_layer_of_blocks_is_the_layer_with_rounded_weights(bits: int, *, symmetric: bool) -> None:
    layer = nn.Linear(70, 33)
    block = quantize_blocks(layer.weight, bits=bits, block=32, symmetric=symmetric)
    made = BlockLinear(block, layer.bias)
    assert torch.equal(made.weight, block.dense())
    assert made.levels.numel() == 33 * 96 * bits // 8
    inputs = torch.randn(4, 70, requires_grad=True)
    made(inputs).sum().backward()
    expected = block.dense().sum(0).expand(4, 70)
    assert inputs.grad is not None
    torch.testing.assert_close(inputs.grad, expected)
    assert torch.equal(copy.deepcopy(made).weight, made.weight)


def test_rounding_slice_by_slice_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(37, 70)
    whole = quantize_blocks(weight, bits=4, block=32, symmetric=False)
    monkeypatch.setattr("easycompress.quantization.blocks.SLICE", 150)
    parts = quantize_blocks(weight, bits=4, block=32, symmetric=False)
    assert torch.equal(whole.levels, parts.levels)
    assert torch.equal(whole.zero, parts.zero)
    assert torch.equal(whole.scale, parts.scale)


def test_a_module_is_judged_as_its_file_is(model: Words, tmp_path: Path) -> None:
    path = write_model(model, words(), tmp_path / "model.onnx")
    np.testing.assert_allclose(Module(model, words()).run(words(7)), Runtime(path, 1).run(words(7)), atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_compressed_through_the_usual_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, tied: bool) -> None:
    torch.manual_seed(1)
    model = Words(tied=tied).eval()
    monkeypatch.setattr(large, "LARGE_BYTES", large.weight_bytes(model))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    steps = recipe(tmp_path, "{kind: weight-only, bits: 4}")
    result = run(model, tmp_path, recipe=steps, target="3x")
    report, out = result.report, tmp_path / "out"
    assert report.verdict == "met"
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert report.baseline.size_bytes == describe_large(model, words(), tmp_path / "model.onnx")
    assert report.final.size_bytes == (out / "model.onnx").stat().st_size
    assert report.baseline.latency_ms == report.final.latency_ms == ()
    assert any("over 2 GB" in note for note in report.plan["notes"])
    assert isinstance(result.model.up, BlockLinear)
    stored = onnx.load(str(out / "model.onnx"))
    assert [node.op_type for node in stored.graph.node].count("DequantizeLinear") == 3
    assert (out / "model.safetensors").stat().st_size < 0.5 * large.weight_bytes(model)
    loaded = ec.load(out, factory=Words)
    assert torch.equal(loaded(words()), result.model(words()))
    expected = model(words(9)).detach().numpy()
    off = np.abs(answers(out / "model.onnx", words(9)) - expected).max()
    assert 0 < off < 0.25 * np.abs(expected).max()
    if not tied:  # the file's head is rounded alone, the module's is its table
        np.testing.assert_allclose(answers(out / "model.onnx", words(9)), loaded(words(9)).detach(), atol=0.05)


@pytest.mark.parametrize("symmetric", ["true", "false"])
@pytest.mark.usefixtures("everything_is_large")
def test_a_result_over_the_limit_has_its_data_beside_it(model: Words, tmp_path: Path, symmetric: str) -> None:
    steps = recipe(tmp_path, f"{{kind: weight-only, bits: 4, symmetric: {symmetric}}}")
    result = run(model, tmp_path, recipe=steps, target="4x")
    path = tmp_path / "out" / "model.onnx"
    assert result.report.final.size_bytes == bytes_of(path) > path.stat().st_size
    listed = {artifact.path: artifact.bytes for artifact in result.report.artifacts}
    assert listed["model.onnx.data"] == data_of(path).stat().st_size
    np.testing.assert_allclose(answers(path, words()), result.model(words()).detach().numpy(), atol=0.05)


@pytest.mark.usefixtures("everything_is_large")
def test_what_is_built_holds_no_copy_of_the_weights(model: Words, tmp_path: Path) -> None:
    prepared, _ = prepared_for(model, tmp_path)
    task = prepared.task
    built = build(task, [], Context(task, prepared.profile, 0, Silent()))
    assert built.model.get_parameter("head.weight").data_ptr() == task.model.get_parameter("head.weight").data_ptr()
    assert original_of(built.model) is task.model


@pytest.mark.usefixtures("everything_is_large")
def test_a_second_run_replaces_a_result_with_data_beside_it(model: Words, tmp_path: Path) -> None:
    steps = recipe(tmp_path, "{kind: weight-only, bits: 4}")
    first = run(model, tmp_path, recipe=steps, target="4x").report
    assert data_of(tmp_path / "out" / "model.onnx").exists()
    second = run(model, tmp_path, recipe=steps, target="4x").report
    assert [(a.path, a.sha256) for a in second.artifacts if "onnx" in a.path] == [
        (a.path, a.sha256) for a in first.artifacts if "onnx" in a.path
    ]


@pytest.mark.usefixtures("everything_is_large")
def test_of_several_ways_to_end_the_best_one_s_data_stays(
    model: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = (WeightOnly(bits=4), WeightOnly(bits=8), WeightOnly(bits=4, symmetric=False))
    monkeypatch.setattr(WeightOnly, "variants", lambda _: ways)
    prepared, request = prepared_for(model, tmp_path)
    task = prepared.task
    journal = open_journal(tmp_path / "out", {}, resume=False, began=0.0)
    attempt = make_workshop(prepared, request, journal, Silent()).attempt(1, [ways[0]], 1.0, 0.0)
    path = journal.path("attempt 1.onnx")
    assert not attempt.accepted
    assert [action["bits"] for action in attempt.actions] == [8]
    assert attempt.value == bytes_of(path)
    scores = scores_of(path, task.data.select, task.metric, 1)
    assert task.metric.quality(scores) == pytest.approx(attempt.quality, abs=1e-9)
    assert not list(journal.folder.glob("best*"))
    assert describe_large(model, words(), tmp_path / "model.onnx") > attempt.value > 0


@pytest.mark.usefixtures("everything_is_large")
def test_nothing_accepted_delivers_the_original(model: Words, tmp_path: Path) -> None:
    flags = {"objective": "size", "target": "5x", "max_drop": "0%", "budget": "none", "metric": "agreement"}
    steps = recipe(tmp_path, "{kind: weight-only, bits: 4}")
    result = ec.compress(model, test=words(64), out=tmp_path / "out", recipe=steps, **flags)
    path = tmp_path / "out" / "model.onnx"
    assert result.report.ratio == 1
    assert result.report.final.size_bytes == bytes_of(path) == result.report.baseline.size_bytes
    np.testing.assert_allclose(answers(path, words()), model(words()).detach().numpy(), atol=1e-5)


@pytest.mark.usefixtures("everything_is_large")
def test_the_plan_is_weight_only(model: Words) -> None:
    def planned(target: str) -> tuple[list[str], str]:
        flags = {"objective": "size", "max_drop": "50%rel", "budget": "5ep", "metric": "perplexity"}
        chosen, _ = ec.plan(model, train=(words(64), words(64)), test=(words(64), words(64)), target=target, **flags)
        return [step.kind for step in chosen.steps], " ".join(chosen.notes)

    assert planned("3x")[0] == ["weight-only"]
    kinds, notes = planned("30x")
    assert kinds == ["weight-only"]
    assert "needs copies of the weights, too much over 2 GB; weight-only instead" in notes


@pytest.mark.usefixtures("everything_is_large")
def test_what_needs_copies_is_refused(model: Words, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--objective latency: not for weights over 2 GB"):
        run(model, tmp_path, objective="latency", target="2x")
    with pytest.raises(BadInput, match="--format packed: not for weights over 2 GB"):
        run(model, tmp_path, format="packed")
    with pytest.raises(CannotCompress, match="dynamic-int8: needs copies of the weights, too much over 2 GB; leave"):
        run(model, tmp_path, recipe=recipe(tmp_path, "{kind: dynamic-int8}"))


@pytest.mark.usefixtures("everything_is_large")
def test_the_layers_that_change_most_keep_eight_bits(tmp_path: Path) -> None:
    model = Words().eval()
    with torch.no_grad():
        model.down.weight[:, ::32] *= 50  # one large value a block leaves nothing for the others
    result = run(model, tmp_path, recipe=recipe(tmp_path, "{kind: weight-only, bits: 4, wide: 0.34}"), target="3x")
    assert [getattr(result.model, name).bits for name in ("up", "down", "head")] == [4, 8, 4]
