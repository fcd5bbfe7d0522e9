"""One compression from end to end for each kind of task: the metric, its targets, its loss and its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from torch.nn import functional

import easycompress as ec
from easycompress.core.errors import BadInput
from easycompress.core.inputs import answer, bundled, parts
from easycompress.measure import latency

if TYPE_CHECKING:
    from pathlib import Path

GOAL: dict[str, Any] = {"objective": "size", "target": "2x", "budget": "none", "threads": 1}
COUNTS = {"train": 300, "validation": 200, "test": 200}
WORDS, LENGTH, TAGS = 30, 8, 5

Draw = "Callable[[int, torch.Generator], tuple[Any, Tensor | None]]"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 1)  # how exactly a millisecond is measured isn't what these tests ask
    monkeypatch.setattr(latency, "PATIENCE", 0.0)


def drawn(draw: Draw) -> dict[str, Any]:
    return {name: draw(count, torch.Generator().manual_seed(seed)) for seed, (name, count) in enumerate(COUNTS.items())}


def learned(model: nn.Module, splits: dict[str, Any], loss: Any, steps: int = 120, rate: float = 0.01) -> nn.Module:
    inputs, targets = splits["train"]
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()
        optimizer.step()
    return model.eval()


def compressed(model: nn.Module, splits: dict[str, Any], out: Path, **changes: Any) -> ec.Result:
    if "budget" not in changes:  # one setting, without a search: each file that is tried takes seconds
        recipe = out.with_suffix(".yaml")
        recipe.write_text("steps: [{kind: entropy-quantization, strength: 0.2}]")
        changes["recipe"] = str(recipe)
    result = ec.compress(model, **splits, out=out, **(GOAL | changes))
    report = result.report
    assert report.verdict == "met", report.summary
    assert report.ratio >= 2
    assert report.drop.n == COUNTS["test"]
    assert report.baseline.quality - report.final.quality == pytest.approx(
        report.drop.estimate if report.profile["metric"]["higher_is_better"] else -report.drop.estimate
    )
    saved = np.load(out / "predictions.npz")
    assert len(saved["scores_before"]) == COUNTS["test"]
    assert result.exit_code == 0
    check_file(result, splits["test"][0] if isinstance(splits["test"], tuple) else splits["test"])
    return result


def check_file(result: ec.Result, inputs: Any) -> None:
    """The file answers in ONNX Runtime as the module, by the rounding of sums or of integers."""
    session = onnxruntime.InferenceSession(str(result.out / "model.onnx"), providers=["CPUExecutionProvider"])
    given = bundled(inputs)
    names = [value.name for value in session.get_inputs()]
    found = session.run(None, {n: t.numpy() for n, t in zip(names, parts(given), strict=True)})[0]
    with torch.no_grad():
        expected = answer(result.model, given).numpy()
    assert found.shape == expected.shape
    integers = any(step.action.endswith("-int8") for step in result.report.steps)
    assert np.abs(found - expected).max() <= (0.1 if integers else 1e-3) * max(1.0, np.abs(expected).max())


def metric_of(result: ec.Result) -> str:
    return str(result.report.profile["metric"]["name"])


def notes_of(result: ec.Result) -> str:
    return "; ".join(result.report.plan["notes"])


class Tagger(nn.Module):
    """A class a token, by the token and its neighbours."""

    def __init__(self, classes: int = TAGS) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 24)
        self.mix = nn.Conv1d(24, 48, 3, padding=1)
        self.head = nn.Linear(48, classes)

    def forward(self, input_ids: Tensor) -> Tensor:
        mixed = torch.relu(self.mix(self.words(input_ids).transpose(1, 2)))
        return self.head(mixed.transpose(1, 2))


def tags(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    words = torch.randint(1, WORDS, (count, LENGTH), generator=generator)
    wanted = words % TAGS
    wanted[torch.rand(count, LENGTH, generator=generator) < 0.2] = -100
    return words, wanted


def token_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs.transpose(1, 2), targets)


def test_token_classification(tmp_path: Path) -> None:
    torch.manual_seed(0)
    splits = drawn(tags)
    model = learned(Tagger(), splits, token_loss)
    plain = compressed(model, splits, tmp_path / "a", max_drop="2%", metric="accuracy")
    assert plain.report.baseline.quality > 95
    inputs, targets = splits["test"]
    right = (model(inputs).argmax(2) == targets)[targets != -100].double().mean()
    assert plain.report.baseline.quality == pytest.approx(100 * float(right))
    named = compressed(model, splits, tmp_path / "b", max_drop="2%", metric="token-f1")
    assert "a token each, without class 0" in notes_of(named)


class Speller(nn.Module):
    """The next token, of those before: a causal convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 24)
        self.mix = nn.Conv1d(24, 48, 2)
        self.head = nn.Linear(48, WORDS)

    def forward(self, input_ids: Tensor) -> Tensor:
        embedded = functional.pad(self.words(input_ids).transpose(1, 2), (1, 0))
        return self.head(torch.relu(self.mix(embedded)).transpose(1, 2))


def texts(count: int, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    start = torch.randint(WORDS, (count, 1), generator=generator)
    words = (start + 3 * torch.arange(LENGTH)) % WORDS
    noise = torch.rand(words.shape, generator=generator) < 0.1
    words = torch.where(noise, torch.randint(WORDS, words.shape, generator=generator), words)
    return {"input_ids": words}, words.clone()


def test_a_causal_language_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    splits = drawn(texts)
    pairs = {name: (inputs["input_ids"], words) for name, (inputs, words) in splits.items()}
    model = learned(Speller(), pairs, lambda o, t: token_loss(o[:, :-1], t[:, 1:]))
    result = compressed(model, splits, tmp_path / "out", max_drop="10%rel", budget="1ep")
    assert metric_of(result) == "perplexity"
    assert "perplexity of the next token" in notes_of(result)
    inputs, words = pairs["test"]
    with torch.no_grad():
        expected = token_loss(model(inputs)[:, :-1], words[:, 1:]).exp()
    assert result.report.baseline.quality == pytest.approx(float(expected), rel=1e-4)
    with pytest.raises(BadInput, match="perplexity is not a percentage; write 1%rel, or an absolute drop"):
        ec.compress(model, **splits, out=tmp_path / "o", **GOAL, max_drop="1%")


def rows(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(count, 6, generator=generator)
    noise = 0.1 * torch.randn(count, 2, generator=generator)
    return inputs, torch.stack([inputs[:, :3].sum(1), (inputs[:, 3:] ** 2).sum(1)], 1) + noise


def regressor(outputs: int = 2) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, outputs))


def test_regression(tmp_path: Path) -> None:
    torch.manual_seed(0)
    splits = drawn(rows)
    model = learned(regressor(), splits, functional.mse_loss)
    result = compressed(model, splits, tmp_path / "out", max_drop="0.05", metric="r2")
    assert result.report.baseline.quality > 0.8
    assert result.report.drop.upper_95 is not None
    chosen, _ = ec.api.plan(model, **splits, **GOAL | {"budget": "2ep"}, max_drop="5%rel")
    assert all(step.outputs == "values" for step in chosen.steps if step.kind == "distillation")


def test_one_number_a_sample(tmp_path: Path) -> None:
    torch.manual_seed(0)
    splits = {name: (inputs, targets[:, 0]) for name, (inputs, targets) in drawn(rows).items()}
    model = nn.Sequential(regressor(1), nn.Flatten(0))
    result = compressed(learned(model, splits, functional.mse_loss), splits, tmp_path / "out", max_drop="50%rel")
    assert metric_of(result) == "mse"
    assert "the targets are numbers" in notes_of(result)


def test_values_without_labels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    splits = drawn(rows)
    model = learned(regressor(1), {"train": (splits["train"][0], splits["train"][1][:, :1])}, functional.mse_loss)
    bare = {name: inputs for name, (inputs, _) in splits.items()}
    result = compressed(model, bare, tmp_path / "out", max_drop="2%")
    assert metric_of(result) == "fidelity"
    assert result.report.baseline.quality == pytest.approx(100, abs=1e-3)
    assert "share of the variance" in notes_of(result)


def test_classes_without_labels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    splits = {name: (inputs, (targets[:, 0] > 0.5).long()) for name, (inputs, targets) in drawn(rows).items()}
    model = learned(regressor(2), splits, functional.cross_entropy)
    result = compressed(model, {name: inputs for name, (inputs, _) in splits.items()}, tmp_path / "out", max_drop="5%")
    assert metric_of(result) == "agreement"
    assert result.report.baseline.quality == 100


class Reader(nn.Module):
    """A class of a whole sequence, which its last word tells."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 16)
        self.body = nn.LSTM(16, 48, batch_first=True)
        self.head = nn.Linear(48, TAGS)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.body(self.words(input_ids))[0][:, -1])


def read(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    words = torch.randint(WORDS, (count, LENGTH), generator=generator)
    return words, words[:, -1] % TAGS


@pytest.mark.parametrize("kind", ["entropy-quantization, strength: 0.3", "dynamic-int8"])
def test_an_lstm(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    splits = drawn(read)
    model = learned(Reader(), splits, functional.cross_entropy, 80)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"steps: [{{kind: {kind}}}]")
    result = compressed(model, splits, tmp_path / "out", max_drop="3%", recipe=str(recipe), budget="none")
    assert result.report.baseline.quality > 90
    assert result.report.profile["architecture"] == "rnn"


class Sentences(nn.Module):
    """Embeddings (N, 2, D) of two sentences: the mean of their words'."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 32)
        self.mix = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 24))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.stack([self.mix(self.words(words).mean(1)) for words in (first, second)], 1)


def alike(count: int, generator: torch.Generator) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Two sentences, and the share of the words that they have in common."""
    first = torch.randint(WORDS, (count, LENGTH), generator=generator)
    second = torch.randint(WORDS, (count, LENGTH), generator=generator)
    shared = torch.rand(count, 1, generator=generator)
    kept = torch.rand(count, LENGTH, generator=generator) < shared
    return (first, torch.where(kept, first, second)), kept.double().mean(1).float()


def test_embeddings_of_sentences(tmp_path: Path) -> None:
    torch.manual_seed(0)
    splits = drawn(alike)
    model = Sentences()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    inputs, targets = splits["train"]
    for _ in range(100):
        optimizer.zero_grad()
        made = model(*inputs)
        functional.mse_loss(torch.cosine_similarity(made[:, 0], made[:, 1]), targets).backward()
        optimizer.step()
    result = compressed(model.eval(), splits, tmp_path / "out", max_drop="0.05")
    assert metric_of(result) == "spearman"
    assert "rank correlation of the embeddings' cosines" in notes_of(result)
    with torch.no_grad():
        made = model(*splits["test"][0])
    found = torch.cosine_similarity(made[:, 0], made[:, 1]).numpy()
    expected = scipy.stats.spearmanr(found, splits["test"][1].numpy()).statistic
    assert result.report.baseline.quality == pytest.approx(expected, abs=1e-4)
    assert expected > 0.7


def pictures(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    inputs = torch.rand(count, 1, 12, 12, generator=generator)
    smooth = functional.avg_pool2d(inputs, 3, 1, 1)[:, 0]
    return inputs, torch.bucketize(smooth, torch.tensor([0.42, 0.58]))


def test_segmentation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    splits = drawn(pictures)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 1), nn.ReLU(), nn.Conv2d(32, 3, 1)
    )
    learned(model, splits, functional.cross_entropy, 60, 0.02)
    result = compressed(model, splits, tmp_path / "out", max_drop="5%", metric="miou")
    assert 60 < result.report.baseline.quality <= 100


def test_an_autoencoder_without_targets(tmp_path: Path) -> None:
    torch.manual_seed(0)
    basis = torch.randn(4, 20)
    splits = drawn(lambda count, generator: (torch.randn(count, 4, generator=generator) @ basis, None))
    bare = {name: inputs for name, (inputs, _) in splits.items()}
    model = nn.Sequential(
        nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 6), nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 20)
    )
    learned(model, {"train": (bare["train"], bare["train"])}, functional.mse_loss, 200)
    result = compressed(model, bare, tmp_path / "out", max_drop="0.2")
    assert metric_of(result) == "mse"
    assert "how well the inputs are reproduced" in notes_of(result)
    expected = functional.mse_loss(model(bare["test"]), bare["test"])
    assert result.report.baseline.quality == pytest.approx(float(expected), rel=1e-3)


OWN = """
import numpy as np

def balanced(outputs, targets):
    guess = outputs.argmax(1)
    return np.mean([float((guess[targets == c] == c).float().mean()) for c in targets.unique()])
balanced.corpus = True

def nothing(outputs, targets):
    return float("nan")
nothing.corpus = True

def broken(outputs, targets):
    return [1.0] / 0
"""


def test_a_users_metric_of_the_whole_split(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    torch.manual_seed(0)
    splits = {name: (inputs, (targets[:, 0] > 0.5).long()) for name, (inputs, targets) in drawn(rows).items()}
    model = learned(regressor(2), splits, functional.cross_entropy)
    result = compressed(model, splits, tmp_path / "out", max_drop="0.02", metric=f"{tmp_path}/own.py:balanced")
    assert 0.8 < result.report.baseline.quality <= 1
    with pytest.raises(BadInput, match=r"own.py:nothing on select is not a finite number"):
        ec.compress(model, **splits, out=tmp_path / "n", **GOAL, max_drop="1", metric=f"{tmp_path}/own.py:nothing")
    with pytest.raises(BadInput, match=r"it raised TypeError: unsupported operand") as caught:
        ec.compress(model, **splits, out=tmp_path / "b", **GOAL, max_drop="1", metric=f"{tmp_path}/own.py:broken")
    assert isinstance(caught.value.__cause__, TypeError)
