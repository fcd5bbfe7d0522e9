"""Models of several inputs, and of tuple and dict outputs, from the caller's data to files that run."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import nets
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import easycompress as ec
from easycompress.artifact.onnx_export import BATCH, export
from easycompress.core.errors import BadInput
from easycompress.core.inputs import Bundle, answer, bundled, repeated
from easycompress.measure import latency
from easycompress.measure.compute import macs
from easycompress.measure.profile import profile
from easycompress.measure.runtime import Runtime
from easycompress.report.snippets import run_snippet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LENGTH = 6
SPLITS = {"train": 600, "validation": 500, "test": 500}
GOAL: dict[str, Any] = {"objective": "size", "target": "1.2x", "max_drop": "3%", "budget": "none", "threads": 1}

Columns = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 1)  # how exactly a millisecond is measured isn't what these tests ask
    monkeypatch.setattr(latency, "PATIENCE", 0.0)


def draw(count: int, seed: int) -> Columns:
    """Sentences whose class the first word tells; what the mask covers, and the numbers, tell nothing."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(1, nets.WORDS, (count, LENGTH), generator=generator)
    mask = (torch.arange(LENGTH) < torch.randint(1, LENGTH + 1, (count, 1), generator=generator)).long()
    words[:, 1:] = words[:, :1]
    words = torch.where(mask == 1, words, torch.zeros_like(words))
    return {"input_ids": words, "attention_mask": mask, "labels": words[:, 0] % nets.CLASSES}


def numbers(data: Columns) -> tuple[tuple[Tensor, Tensor], Tensor]:
    noise = torch.randn(len(data["labels"]), 6, generator=torch.Generator().manual_seed(9))
    return (data["input_ids"], 0.1 * noise), data["labels"]


def keywords(data: Columns) -> tuple[Columns, Tensor]:
    return {name: value for name, value in data.items() if name != "labels"}, data["labels"]


@functools.cache
def splits() -> dict[str, Columns]:
    return {name: draw(count, seed) for seed, (name, count) in enumerate(SPLITS.items())}


def taught(model: nn.Module, form: Callable[[Columns], tuple[Any, Tensor]], steps: int = 60) -> nn.Module:
    inputs, labels = form(splits()["train"])
    given = bundled(inputs)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(answer(model, given), labels).backward()
        optimizer.step()
    return model.eval()


@functools.cache
def pair() -> nn.Module:
    torch.manual_seed(0)
    return taught(nets.Pair(), numbers)


@functools.cache
def worded() -> nn.Module:
    torch.manual_seed(0)
    return taught(nets.Worded(), keywords)


def bert(**changes: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    settings = {
        "vocab_size": nets.WORDS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 16, "num_labels": nets.CLASSES,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    torch.manual_seed(0)
    model: nn.Module = transformers.BertForSequenceClassification(transformers.BertConfig(**(settings | changes)))
    return model.eval()


def given(form: Callable[[Columns], tuple[Any, Tensor]], count: int = 2, split: str = "test") -> Bundle:
    inputs = bundled(form(splits()[split])[0])
    assert isinstance(inputs, Bundle)
    return inputs[:count]


@functools.cache
def graph(make: Callable[[], nn.Module], form: Callable[[Columns], tuple[Any, Tensor]]) -> onnx.ModelProto:
    """Return the plain export, made once: nobody may change it."""
    return export(make(), given(form))


def save(proto: onnx.ModelProto, path: Path) -> Path:
    onnx.save(proto, str(path))
    return path


FILES = [
    (pair, numbers, {"words": 7, "numbers": 1}, ["output", "output_1"]),
    (worded, keywords, {"input_ids": 7, "attention_mask": 7}, ["logits", "hidden"]),
    (bert, keywords, {"input_ids": 7, "attention_mask": 7}, ["logits"]),
]


@pytest.mark.parametrize(("make", "form", "inputs", "outputs"), FILES, ids=["tuple", "dict", "bert"])
def test_the_file_keeps_the_modules_interface(
    make: Callable[[], nn.Module], form: Any, inputs: dict[str, int], outputs: list[str], tmp_path: Path
) -> None:
    model = make()
    proto = graph(make, form)
    found = {value.name: value.type.tensor_type for value in proto.graph.input}
    assert {name: kind.elem_type for name, kind in found.items()} == inputs
    assert list(found) == list(inputs)
    assert {kind.shape.dim[0].dim_param for kind in found.values()} == {BATCH}
    assert [value.name for value in proto.graph.output] == outputs
    assert "forward" not in vars(model)
    parameters = {name for name, _ in model.named_parameters()}
    assert {tensor.name for tensor in proto.graph.initializer} & parameters
    runtime = Runtime(save(proto, tmp_path / "m.onnx"), 1)
    for count in (1, 5):
        batch = given(form, count)
        with torch.no_grad():
            np.testing.assert_allclose(runtime.run(batch), answer(model, batch).numpy(), atol=1e-5)


def test_an_input_that_nothing_reads_stays(tmp_path: Path) -> None:
    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, unused: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002 - the point
            return self.linear(x)

    inputs = Bundle((torch.zeros(2, 1), torch.randn(2, 4)))
    model = Deaf().eval()
    proto = export(model, inputs)
    assert [value.name for value in proto.graph.input] == ["unused", "x"]
    answers = Runtime(save(proto, tmp_path / "m.onnx"), 1).run(inputs)
    np.testing.assert_allclose(answers, model(*inputs.tensors).detach().numpy(), atol=1e-6)


def test_names_that_the_graph_has_not_are_not_fed(tmp_path: Path) -> None:
    runtime = Runtime(save(graph(worded, keywords), tmp_path / "m.onnx"), 1)
    words = given(keywords)
    more = Bundle((torch.zeros(2), *words.tensors), ("idx", *words.names))
    assert runtime.feeds(more).keys() == {"input_ids", "attention_mask"}
    assert np.array_equal(runtime.run(more), runtime.run(words))


def test_multiply_accumulates_are_of_one_sample() -> None:
    assert macs(graph(pair, numbers)) == 6 * 32 + 32 * 48 + 48 * 10
    width, inner, layers = 32, 64, 2
    block = LENGTH * (4 * width * width + 2 * width * inner) + 2 * LENGTH * LENGTH * width
    made = graph(bert, keywords)  # the mask's shapes can only be seen in a run
    assert macs(made) == layers * block + width * width + width * nets.CLASSES
    facts = profile(bert(), made, (LENGTH,), nets.CLASSES)
    assert facts.architecture == "transformer"
    assert facts.macs == macs(made)


def compressed(model: nn.Module, form: Callable[[Columns], Any], out: Path, **changes: Any) -> ec.Result:
    return ec.compress(model, **{name: form(data) for name, data in splits().items()}, out=out, **(GOAL | changes))


def check_files(result: ec.Result, model: nn.Module, batch: Bundle, names: list[str]) -> None:
    assert result.exit_code == 0
    session = onnxruntime.InferenceSession(str(result.out / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == names
    feeds = {name: tensor.numpy() for name, tensor in zip(names, batch.tensors, strict=True)}
    answers = session.run(None, feeds)[0]
    with torch.no_grad():
        original = answer(model, batch)
        again = answer(ec.load(result.out, factory=lambda: model), batch)
    assert answers.shape == original.shape
    assert float((torch.from_numpy(answers).argmax(1) == original.argmax(1)).float().mean()) > 0.9
    assert float((again.argmax(1) == original.argmax(1)).float().mean()) > 0.9


def test_two_inputs_in_order(tmp_path: Path) -> None:
    result = compressed(pair(), numbers, tmp_path / "out")
    assert result.report.verdict == "met"
    assert result.report.ratio >= 1.2
    assert result.report.baseline.quality > 95
    check_files(result, pair(), given(numbers, 200), ["words", "numbers"])
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert record["names"] == []
    assert record["samples"] == [{"shape": [LENGTH], "dtype": "int64"}, {"shape": [6], "dtype": "float32"}]


def test_inputs_by_keyword_and_a_dict_of_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = compressed(worded(), lambda data: data, tmp_path / "out")
    assert result.report.verdict == "met"
    check_files(result, worded(), given(keywords, 200), ["input_ids", "attention_mask"])
    assert [value["name"] for value in result.report.profile["inputs"]] == ["input_ids", "attention_mask"]
    monkeypatch.chdir(result.out)
    seen: dict[str, Any] = {}
    exec(run_snippet(result.report), seen)  # noqa: S102 - a user pastes it
    assert seen["y"].shape == (1, nets.CLASSES)
    assert json.loads((tmp_path / "out" / "record.json").read_text())["names"] == ["input_ids", "attention_mask"]


def test_a_transformer(tmp_path: Path) -> None:
    model = taught(bert(), keywords, steps=30)
    result = compressed(model, lambda data: data, tmp_path / "out")
    assert result.report.profile["architecture"] == "transformer"
    assert result.report.verdict == "met"
    check_files(result, model, given(keywords, 200), ["input_ids", "attention_mask"])


def test_training_on_several_inputs(tmp_path: Path) -> None:
    """Recovery, its teacher and its judge take the same inputs as everything else."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("steps:\n  - {kind: distillation, technique: combined, mode: budget, epochs: 1}\n")
    result = compressed(worded(), lambda data: data, tmp_path / "out", recipe=str(recipe), budget="1ep")
    trained = [step for step in result.report.steps if step.action == "distillation"]
    assert [step.epochs for step in trained] == [1]


def test_keywords_that_the_model_lacks_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"doesn't take samples of shape input_ids \(6,\), mask \(6,\): .*'mask'"):
        compressed(
            worded(), lambda data: {name.replace("attention_", ""): v for name, v in data.items()}, tmp_path / "out"
        )


def test_splits_of_other_keywords_are_refused(tmp_path: Path) -> None:
    data = splits()
    other = {("mask" if name == "attention_mask" else name): value for name, value in data["test"].items()}
    with pytest.raises(
        BadInput, match="test: samples of arguments input_ids, mask, but train has input_ids, attention"
    ):
        ec.compress(
            worded(), train=data["train"], validation=data["validation"], test=other, out=tmp_path / "o", **GOAL
        )


def test_any_number_of_samples_is_fed() -> None:
    assert [len(tensor) for tensor in repeated(given(keywords), 64).tensors] == [64, 64]
