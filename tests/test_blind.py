"""Without data weights are compressed all the same, and nobody says that the result is good."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import pytest
import torch
import transformers
from torch import nn

import easycompress
from easycompress.artifact.write import PACKED
from easycompress.core.errors import BadInput
from easycompress.core.inputs import Bundle, answer
from easycompress.intake.lift_proof import EXAMPLE
from easycompress.intake.synthetic import SAMPLES, make_inputs
from easycompress.measure.runtime import Runtime
from tests import nets

if TYPE_CHECKING:
    from pathlib import Path


def linear(*sizes: int) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*[module for layer in layers for module in (layer, nn.ReLU())][:-1])


def test_weights_alone_are_compressed_and_the_verdict_says_that_nobody_judged(tmp_path: Path) -> None:
    model = nets.make(nets.BatchNormed)
    result = easycompress.compress(model, target="2x", budget="none", shape="1,8,8", out=tmp_path / "out")
    report = result.report
    assert (report.verdict, result.exit_code) == ("undecided", 4)
    assert report.target_met
    assert report.ratio >= 2
    assert "quality not judged: no data was given" in report.summary
    assert [step.action for step in report.steps if step.verdict == "kept"][-1] == "entropy-quantization"
    assert report.plan["notes"][0].startswith(
        "no data was given: quality isn't judged; random inputs of shape (1, 8, 8)"
    )
    page = (tmp_path / "out" / "report.html").read_text()
    assert "not judged" in page
    assert "inf" not in json.dumps(report.drop.model_dump())
    inputs = nets.images(4)
    given = Runtime(tmp_path / "out" / "model.onnx", 1).run(inputs)
    assert torch.allclose(answer(result.model, inputs), torch.from_numpy(given), atol=1e-4)


def test_a_model_of_linear_layers_keeps_blocks_of_integers(tmp_path: Path) -> None:
    result = easycompress.compress(linear(64, 256, 256, 8), target="3x", budget="none", out=tmp_path / "out")
    assert [step.action for step in result.report.steps if step.verdict == "kept"][-1] == "weight-only"
    assert result.report.ratio >= 3


def test_a_packed_file_without_data(tmp_path: Path) -> None:
    model = nets.make(nets.BatchNormed)
    result = easycompress.compress(
        model, target="4x", budget="none", shape="1,8,8", format="packed", out=tmp_path / "out"
    )
    assert result.report.ratio >= 4
    assert (tmp_path / "out" / f"model{PACKED}").exists()


@pytest.mark.parametrize(
    ("flag", "value"), [("max_drop", "1%"), ("min_quality", "98%"), ("metric", "accuracy"), ("certify", True)]
)
def test_what_takes_data_is_refused_without_any(flag: str, value: object) -> None:
    with pytest.raises(BadInput, match=f"^no data given, so --{flag.replace('_', '-')} {value} can't be judged: add"):
        easycompress.compress(linear(4, 4), target="2x", **{flag: value})


def test_nothing_is_done_that_needs_data(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("steps:\n  - kind: static-int8\n")
    with pytest.raises(easycompress.core.errors.CannotCompress, match="needs samples to calibrate on"):
        easycompress.compress(nets.make(nets.BatchNormed), target="2x", shape="1,8,8", recipe=str(recipe))


def test_inputs_are_made_from_the_first_layer_or_the_shape() -> None:
    inputs, note = make_inputs(linear(12, 3), None)
    assert isinstance(inputs, torch.Tensor)
    assert inputs.shape == (SAMPLES, 12)
    assert note.endswith("random inputs of shape (12,) stand in")
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 2))
    assert make_inputs(flat, None)[0][:1].shape == (1, 3, 28, 28)  # type: ignore[union-attr] # a tensor
    words, _ = make_inputs(nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(32 * 4, 2)), None)
    assert isinstance(words, torch.Tensor)
    assert int(words.max()) < 7
    again, _ = make_inputs(linear(12, 3), None)
    assert torch.equal(inputs, again)  # type: ignore[arg-type] # tensors both


def test_inputs_like_those_of_the_file() -> None:
    model = linear(4, 4)
    model.meta = {EXAMPLE: (torch.tensor([[3, 5], [5, 3]]), torch.zeros(2, 4))}  # type: ignore[assignment] # as fx has it
    inputs, _ = make_inputs(model, None)
    assert isinstance(inputs, Bundle)
    assert set(inputs.tensors[0].flatten().tolist()) == {3, 5}
    assert inputs.tensors[1].shape == (SAMPLES, 4)


@pytest.mark.parametrize("decodes", [False, True])
def test_inputs_by_the_configuration_of_a_pretrained_model(*, decodes: bool) -> None:
    options = {"vocab_size": 11, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
               "decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}  # fmt: skip
    model: nn.Module = transformers.BartModel(transformers.BartConfig(**options, is_encoder_decoder=decodes)).eval()
    inputs, _ = make_inputs(model, None)
    assert isinstance(inputs, Bundle)
    ids = ("input_ids", "decoder_input_ids") if decodes else ("input_ids",)
    assert sorted(inputs.names) == sorted((*ids, "attention_mask"))
    given = dict(zip(inputs.names, inputs.tensors, strict=True))
    assert given["attention_mask"].all()
    assert all(int(given[name].max()) < 11 for name in ids)


@pytest.mark.parametrize("shape", ["3,", "a", "0,3", ""])
def test_a_shape_that_is_none(shape: str) -> None:
    with pytest.raises(BadInput, match=f"^--shape {shape}: not a shape; write one sample's"):
        make_inputs(linear(4, 4), shape)


def test_a_shape_that_the_model_does_not_take() -> None:
    with pytest.raises(BadInput, match=r"^--shape 5: the model doesn't take it: "):
        make_inputs(linear(4, 4), "5")


def test_a_model_that_tells_nothing() -> None:
    with pytest.raises(BadInput, match="nothing tells what the model takes: add --data, or --shape"):
        make_inputs(nn.Sequential(nn.ReLU()), None)
