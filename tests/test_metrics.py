"""Metrics are what people call by those names: each against another's implementation, or its published definition."""

from __future__ import annotations

import collections
import math
import re
import string
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    jaccard_score,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    top_k_accuracy_score,
)
from torch import Tensor
from torch.nn import functional

from easycompress.core.errors import BadInput, Crashed
from easycompress.core.references import References
from easycompress.metrics import LOSSES, METRICS, Facts, default_loss, fitted, user_metric
from easycompress.metrics.language import entities, next_tokens
from easycompress.metrics.shapes import IGNORED
from easycompress.metrics.squad import best_spans, exact, normalised, overlap

if TYPE_CHECKING:
    from easycompress.core.task import Metric

PERCENT = METRICS.keys() - {"perplexity", "mse", "mae", "rmse", "r2", "spearman"}
LOWER = {"perplexity", "mse", "mae", "rmse"}


def quality(name: str, outputs: Tensor, targets: Tensor, **facts: Any) -> float:
    metric, _ = fitted(METRICS[name], Facts(shape=tuple(outputs.shape), **facts))
    halves = [metric.scores(o, t) for o, t in zip(outputs.split(3), targets.split(3), strict=True)]  # as batches come
    return metric.quality(np.concatenate(halves))


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(seed: int, classes: int, *shape: int, ignored: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    found = torch.randint(classes, shape, generator=generator)
    return found.masked_fill(torch.rand(shape, generator=generator) < ignored, IGNORED)


seeds = st.integers(0, 10_000)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(2, 9), seeds)
def test_accuracy_and_top5_are_those_of_scikit_learn(number: int, classes: int, seed: int) -> None:
    outputs, targets = draw(seed, number, classes), labels(seed, classes, number)
    scores = METRICS["accuracy"].scores(outputs, targets)
    assert scores.shape == (number,)
    assert set(scores.tolist()) <= {0.0, 1.0}
    assert quality("accuracy", outputs, targets) == pytest.approx(100 * accuracy_score(targets, outputs.argmax(1)))
    share = (
        1.0 if classes <= 5 else float(top_k_accuracy_score(targets, outputs.numpy(), k=5, labels=np.arange(classes)))
    )
    assert quality("top5", outputs, targets) == pytest.approx(100 * share)
    assert (METRICS["agreement"].scores(outputs, targets) == scores).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(2, 6), seeds)
def test_f1_is_that_of_scikit_learn(number: int, classes: int, seed: int) -> None:
    outputs, targets = draw(seed, number, classes), labels(seed, classes, number)
    average = "binary" if classes == 2 else "macro"
    expected = f1_score(targets, outputs.argmax(1), average=average, zero_division=0)
    assert quality("f1", outputs, targets) == pytest.approx(100 * expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 9), st.integers(2, 5), seeds)
def test_positions_that_are_ignored_do_not_count(number: int, classes: int, seed: int) -> None:
    outputs, targets = draw(seed, number, 7, classes), labels(seed, classes, number, 7, ignored=0.4)
    targets[0, 0] = 1
    counted = targets != IGNORED
    wanted, found = targets[counted], outputs.argmax(2)[counted]
    assert quality("accuracy", outputs, targets) == pytest.approx(100 * accuracy_score(wanted, found))
    present = [c for c in range(1, classes) if (wanted == c).any() or (found == c).any()]
    expected = f1_score(wanted, found, average="macro", labels=present, zero_division=0)
    assert quality("token-f1", outputs, targets) == pytest.approx(100 * expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(2, 5), seeds)
def test_miou_is_the_mean_of_the_classes_jaccard(number: int, classes: int, seed: int) -> None:
    outputs, targets = draw(seed, number, classes, 4, 5), labels(seed, classes, number, 4, 5)
    found = outputs.argmax(1).flatten()
    expected = jaccard_score(targets.flatten(), found, average="macro", zero_division=0)
    assert quality("miou", outputs, targets) == pytest.approx(100 * expected)
    assert quality("accuracy", outputs, targets) == pytest.approx(100 * accuracy_score(targets.flatten(), found))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 20), st.integers(1, 4), seeds)
def test_errors_and_r2_are_those_of_scikit_learn(number: int, width: int, seed: int) -> None:
    outputs, targets = draw(seed, number, width), draw(seed + 1, number, width)
    assert quality("mse", outputs, targets) == pytest.approx(mean_squared_error(targets, outputs), rel=1e-6)
    assert quality("rmse", outputs, targets) == pytest.approx(math.sqrt(mean_squared_error(targets, outputs)), rel=1e-6)
    assert quality("mae", outputs, targets) == pytest.approx(mean_absolute_error(targets, outputs), rel=1e-6)
    assert quality("r2", outputs, targets) == pytest.approx(r2_score(targets.double(), outputs.double()), rel=1e-6)
    assert float(LOSSES["mse"](outputs, targets)) == pytest.approx(quality("mse", outputs, targets), rel=1e-5)
    assert float(LOSSES["mae"](outputs, targets)) == pytest.approx(quality("mae", outputs, targets), rel=1e-5)


def test_r2_of_what_never_varies() -> None:
    constant = torch.full((6, 1), 0.1)
    assert quality("r2", constant, constant) == 1.0
    assert quality("r2", constant + 1, constant) == 0.0


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 30), seeds)
def test_spearman_is_that_of_scipy(number: int, seed: int) -> None:
    outputs, targets = draw(seed, number), labels(seed, 4, number).float()
    targets[:2] = torch.tensor([0.0, 1.0])
    assert quality("spearman", outputs, targets) == pytest.approx(spearmanr(outputs, targets).statistic)
    pairs = draw(seed, number, 2, 5)
    cosines = functional.cosine_similarity(pairs[:, 0], pairs[:, 1])
    assert quality("spearman", pairs, targets) == pytest.approx(spearmanr(cosines, targets).statistic)
    assert float(LOSSES["cosine"](pairs, targets)) == pytest.approx(float(functional.mse_loss(cosines, targets)))


def test_perplexity_is_that_of_a_shifted_cross_entropy() -> None:
    tokens = labels(3, 11, 7, 5, ignored=0.2)
    outputs = draw(4, 7, 5, 11)
    flat = functional.cross_entropy(outputs[:, :-1].reshape(-1, 11), tokens[:, 1:].reshape(-1), ignore_index=IGNORED)
    targets = next_tokens(tokens)
    assert quality("perplexity", outputs, targets) == pytest.approx(float(flat.exp()), rel=1e-5)
    assert float(LOSSES["cross-entropy"](outputs, targets)) == pytest.approx(float(flat), rel=1e-6)


def test_fidelity_is_the_share_of_the_variance() -> None:
    targets = draw(0, 50, 3)
    spread = float(targets.double().var(0, correction=0).mean())
    assert quality("fidelity", targets, targets, spread=spread) == 100
    mean = targets.mean(0).expand(50, 3)
    assert quality("fidelity", mean, targets, spread=spread) == pytest.approx(0, abs=1e-4)


# ---------------------------------------------------------------- entities


NAMES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(NAMES), max_size=12))
def test_entities_are_those_of_conlleval(tags: list[str]) -> None:
    reference = pytest.importorskip("seqeval.metrics.sequence_labeling")
    assert entities(tags) == {(first, last, kind) for kind, first, last in reference.get_entities(tags)}


def test_token_f1_is_of_whole_entities_where_the_tags_have_names() -> None:
    targets = torch.tensor([[1, 2, 0, 3, IGNORED], [0, 0, 1, 0, 3]])
    guessed = torch.tensor([[1, 2, 0, 0, 4], [3, 0, 1, 2, 3]])  # right: PER, LOC; wrong: LOC, a longer PER; missed: two
    outputs = functional.one_hot(guessed, 5).float()
    metric, note = fitted(METRICS["token-f1"], Facts(shape=(2, 5, 5), names=NAMES))
    scores = metric.scores(outputs, targets)
    assert scores.tolist() == [[1, 1, 2], [1, 3, 2]]
    assert metric.quality(scores) == pytest.approx(100 * 2 * 2 / (4 + 4))
    assert note is not None
    assert "whole entities" in note
    _, other = fitted(METRICS["token-f1"], Facts(shape=(2, 5, 5), names=("a", "b")))
    assert other is not None
    assert "a token each" in other


# ---------------------------------------------------------------- question answering


def published_f1(prediction: str, truth: str) -> float:
    """evaluate-v2.0.py's compute_f1, written down again."""

    def tokens(text: str) -> list[str]:
        text = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
        return re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text).split()

    gold, found = tokens(truth), tokens(prediction)
    common = collections.Counter(gold) & collections.Counter(found)
    same = sum(common.values())
    if len(gold) == 0 or len(found) == 0:
        return int(gold == found)
    if same == 0:
        return 0
    precision, recall = 1.0 * same / len(found), 1.0 * same / len(gold)
    return (2 * precision * recall) / (precision + recall)


WORDS = st.lists(st.sampled_from(["the", "A", "Denver", "denver,", "Broncos", "an", "1876.", "-"]), max_size=6)


@settings(max_examples=50, deadline=None)
@given(WORDS, WORDS)
def test_overlap_is_the_published_f1(first: list[str], second: list[str]) -> None:
    prediction, truth = " ".join(first), " ".join(second)
    assert overlap(prediction, truth) == pytest.approx(published_f1(prediction, truth))


@pytest.mark.parametrize(
    ("prediction", "truth", "f1", "em"),
    [
        ("The Denver Broncos!", "denver broncos", 1.0, 1.0),
        ("Denver Broncos won", "Denver Broncos", 0.8, 0.0),
        ("Carolina Panthers", "Denver Broncos", 0.0, 0.0),
        ("", "", 1.0, 1.0),
        ("the", "", 1.0, 1.0),
        ("x", "", 0.0, 0.0),
    ],
)
def test_known_answers(prediction: str, truth: str, f1: float, em: float) -> None:
    assert overlap(prediction, truth) == pytest.approx(f1)
    assert exact(prediction, truth) == em
    assert normalised("An  apple; the\tPEAR.") == "apple pear"


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), seeds)
def test_the_best_span_is_the_best_of_all(length: int, seed: int) -> None:
    scores, inside = draw(seed, 4, length, 2), draw(seed + 1, 4, length) > -0.5
    for row, span in enumerate(best_spans(scores, inside, may_refuse=False)):
        places = [i for i in range(length) if inside[row, i]]
        pairs = [(i, j) for i in places for j in places if i <= j < i + 30]
        if not pairs:
            assert span is None
            continue
        totals = {pair: float(scores[row, pair[0], 0] + scores[row, pair[1], 1]) for pair in pairs}
        assert span is not None
        assert totals[span] == pytest.approx(max(totals.values()))


def references(*answers: tuple[str, ...]) -> References:
    """Tokens of two characters: 0 is outside the context, i stands for its characters 2i-2 and 2i-1."""
    context = "aabbccddee"
    offsets = torch.tensor([[-1, -1], *[[2 * i, 2 * i + 2] for i in range(5)]], dtype=torch.int32)
    return References((context,) * len(answers), offsets.expand(len(answers), 6, 2), answers)


def pointing(*spans: tuple[int, int]) -> Tensor:
    outputs = torch.zeros(len(spans), 6, 2)
    for row, (first, last) in enumerate(spans):
        outputs[row, first, 0] = outputs[row, last, 1] = 5.0
    return outputs


def test_squad_takes_the_best_of_the_accepted_answers() -> None:
    known = references(("bbcc", "zz"), ("dd",), ("x", "bbcc"))
    targets = torch.tensor([[2, 3, 0], [4, 4, 1], [2, 3, 2]])
    outputs = pointing((2, 3), (4, 5), (2, 3))
    assert quality("squad-em", outputs, targets, references=known) == pytest.approx(100 * 2 / 3)
    metric, _ = fitted(METRICS["squad-f1"], Facts(shape=(3, 6, 2), references=known))
    assert metric.scores(outputs[1:], targets[1:]).tolist() == [0.0, 1.0]  # by the row's number, not its place


def test_no_answer_is_an_answer_only_where_the_data_has_such() -> None:
    targets = torch.tensor([[0, 0, 0], [2, 2, 1]])
    outputs = pointing((0, 0), (2, 2))
    assert quality("squad-f1", outputs, targets, references=references((), ("bb",))) == 100
    assert quality("squad-f1", outputs, targets, references=references(("zz",), ("bb",))) == 50


def test_squad_needs_the_texts() -> None:
    with pytest.raises(BadInput, match="--metric squad-f1: needs the texts behind the tokens: give --data"):
        METRICS["squad-f1"].scores(torch.zeros(1, 6, 2), torch.zeros(1, 3, dtype=torch.long))


# ---------------------------------------------------------------- detection


def test_map_is_that_of_cocos_own_tool(capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    generator = torch.Generator().manual_seed(5)

    def boxes(count: int) -> Tensor:
        corner, size = torch.rand(2, count, 2, generator=generator)
        return torch.cat([60 * corner, 60 * corner + 5 + 30 * size], 1)

    found, targets, truth, guesses = [], torch.full((12, 4, 5), -1.0), [], []
    for image in range(12):
        there = boxes(1 + image % 4)
        kinds = torch.randint(1, 4, (len(there),), generator=generator)
        targets[image, : len(there)] = torch.cat([there, kinds[:, None]], 1)
        near = there + 1.5 * torch.rand(there.shape, generator=generator) * torch.tensor([-1, -1, 1, 1])
        each = {
            "boxes": torch.cat([near, boxes(3)]), "scores": torch.rand(len(near) + 3, generator=generator),
            "labels": torch.cat([kinds, torch.randint(1, 4, (3,), generator=generator)]),
        }  # fmt: skip
        found.append(each)
        for box, kind in zip(there.tolist(), kinds.tolist(), strict=True):
            wide, high = box[2] - box[0], box[3] - box[1]
            truth.append({"id": len(truth) + 1, "image_id": image, "category_id": kind, "iscrowd": 0,
                          "bbox": [box[0], box[1], wide, high], "area": wide * high})  # fmt: skip
        for box, kind, score in zip(*(each[key].tolist() for key in ("boxes", "labels", "scores")), strict=True):
            guesses.append({"image_id": image, "category_id": kind, "score": score,
                            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]})  # fmt: skip
    gold = coco.COCO()
    gold.dataset = {"images": [{"id": i} for i in range(12)], "categories": [{"id": c} for c in (1, 2, 3)],
                    "annotations": truth}  # fmt: skip
    gold.createIndex()
    judge = evaluation.COCOeval(gold, gold.loadRes(guesses), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    capsys.readouterr()
    outputs = torch.arange(12.0)[:, None]
    decode = lambda raw: [found[int(i)] for i in raw[:, 0]]  # noqa: E731 - a stand-in for a model's method
    assert 5 < 100 * judge.stats[0] < 95
    assert quality("map", outputs, targets, decode=decode) == pytest.approx(100 * judge.stats[0], abs=1e-6)
    assert quality("map50", outputs, targets, decode=decode) == pytest.approx(100 * judge.stats[1], abs=1e-6)


def test_map_without_boxes() -> None:
    nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.long)}
    targets = torch.full((2, 1, 5), -1.0)
    assert math.isnan(quality("map", torch.zeros(2, 1), targets, decode=lambda raw: [nothing] * len(raw)))
    targets[0, 0] = torch.tensor([0.0, 0, 4, 4, 1])
    assert quality("map", torch.zeros(2, 1), targets, decode=lambda raw: [nothing] * len(raw)) == 0


# ---------------------------------------------------------------- losses


def test_cross_entropy_takes_every_shape() -> None:
    loss = LOSSES["cross-entropy"]
    plain, classes = draw(0, 5, 3), labels(0, 3, 5)
    assert torch.allclose(loss(plain, classes), functional.cross_entropy(plain, classes))
    tokens, tags = draw(1, 5, 4, 3), labels(1, 3, 5, 4, ignored=0.3)
    assert torch.allclose(loss(tokens, tags), functional.cross_entropy(tokens.transpose(1, 2), tags))
    dense, pixels = draw(2, 2, 3, 4, 5), labels(2, 3, 2, 4, 5)
    assert torch.allclose(loss(dense, pixels), functional.cross_entropy(dense, pixels))
    spans, ends = draw(3, 5, 7, 2), torch.cat([labels(3, 7, 5, 2), torch.arange(5)[:, None]], 1)
    expected = [functional.cross_entropy(spans[..., i], ends[:, i]) for i in range(2)]
    assert torch.allclose(loss(spans, ends), (expected[0] + expected[1]) / 2)
    assert float(loss(tokens, torch.full_like(tags, IGNORED))) == 0.0


def test_targets_of_a_column_may_be_flat() -> None:
    outputs, targets = torch.tensor([[1.0], [2.0]]), torch.tensor([1, 4])
    assert METRICS["mse"].scores(outputs, targets).tolist() == [0.0, 4.0]
    assert float(LOSSES["mse"](outputs, targets)) == 2.0
    assert quality("mse", outputs[:, 0], targets) == 2.0


def test_what_each_metric_is() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.percent == (metric.scale == 100.0) == (name in PERCENT)
        assert metric.higher_is_better == (name not in LOWER)
        assert default_loss(metric) in LOSSES
    assert {m.name for m in METRICS.values() if m.binary} == {"accuracy", "agreement", "top5", "squad-em"}
    assert default_loss(METRICS["rmse"]) == "mse"
    assert default_loss(METRICS["top5"]) == "cross-entropy"


# ---------------------------------------------------------------- the user's own


@pytest.mark.parametrize(
    "result", [torch.ones, lambda n: [1] * n, lambda n: np.ones(n, "f4"), lambda n: torch.ones(n, dtype=torch.bool)]
)
def test_a_users_scores_may_be_any_row_of_numbers(result: Any) -> None:
    metric = user_metric(lambda outputs, _: result(len(outputs)), "own.py:f")
    scores = metric.scores(torch.zeros(4, 2), torch.zeros(4))
    assert scores.dtype == np.float64
    assert metric.quality(scores) == 1.0
    assert not metric.percent
    assert not metric.binary


def test_a_users_gradient_is_left_behind() -> None:
    metric = user_metric(lambda outputs, _: outputs.sum(1), "own.py:f")
    assert metric.scores(torch.ones(2, 3, requires_grad=True), torch.zeros(2)).tolist() == [3, 3]


def test_lower_may_be_better() -> None:
    def error(outputs: Tensor, _: Tensor) -> Tensor:
        return outputs.sum(1)

    error.higher_is_better = False  # type: ignore[attr-defined] # how a user says it
    assert not user_metric(error, "own.py:error").higher_is_better


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda o, _: o, "it must return one score a sample, shape (2,), not (2, 3)"),
        (lambda _, __: 0.5, "it must return one score a sample, shape (2,), not ()"),
        (lambda _, __: [1.0, float("inf")], "it returned a score that is not a finite number"),
        (lambda _, __: "good", "it raised TypeError: "),
        (lambda outputs, _: outputs[2], "it raised IndexError: index 2 is out of bounds"),
    ],
)
def test_a_users_metric_that_returns_something_else(function: Any, text: str) -> None:
    metric = user_metric(function, "own.py:f")
    with pytest.raises(BadInput) as caught:
        metric.scores(torch.zeros(2, 3), torch.zeros(2))
    assert str(caught.value).startswith(f"--metric own.py:f: {text}")
    assert "\n" not in str(caught.value)


def whole(function: Any) -> Metric:
    function.corpus = True
    return user_metric(function, "own.py:whole")


def test_a_users_metric_of_a_whole_split_gets_back_what_it_was_given() -> None:
    outputs, targets = draw(0, 6, 2, 3), labels(0, 9, 6, 4)
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(own: Tensor, right: Tensor) -> float:
        seen.append((own, right))
        return 0.25

    metric = whole(keep)
    rows = np.concatenate([metric.scores(o, t) for o, t in zip(outputs.split(4), targets.split(4), strict=True)])
    assert metric.quality(rows) == 0.25
    assert not metric.is_mean
    assert torch.equal(seen[0][0], outputs)
    assert torch.equal(seen[0][1], targets)
    assert seen[0][1].dtype == torch.int64


def test_a_whole_splits_metric_that_fails() -> None:
    rows = whole(lambda o, _: o).scores(torch.zeros(2, 3), torch.zeros(2))
    several, broken = whole(lambda o, _: o), whole(lambda _, __: 1 / 0)
    for metric in (several, broken):
        metric.scores(torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(BadInput, match=r"corpus = True, so it must return one number, not shape \(2, 3\)"):
        several.quality(rows)
    with pytest.raises(Crashed, match="it raised ZeroDivisionError: division by zero; mend it") as caught:
        broken.quality(rows)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
