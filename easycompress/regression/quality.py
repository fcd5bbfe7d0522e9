"""Quality, sample by sample: a candidate's answers, or the ones stored with it, beside the baseline's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from easycompress.core.errors import BadInput, EasyCompressError, one_line
from easycompress.measure.runtime import Runtime
from easycompress.measure.statistics import paired_drop, within
from easycompress.metrics import Facts
from easycompress.predictions import others
from easycompress.regression.outcome import Check, worse
from easycompress.regression.samples import FEW, Samples, make_metric
from easycompress.report import units

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.goal import Floor
    from easycompress.core.task import Metric
    from easycompress.predictions import Predictions
    from easycompress.regression.baseline import Reported

Array = np.ndarray[Any, Any]

QUALITY = "quality"


def check_answers(model: Path, threads: int, samples: Samples, known: Predictions, floor: Floor) -> Check:
    """Run a model on the samples and compare its scores with the baseline's."""
    limit = f"drop {floor.text}"
    try:
        scores, answers = Runtime(model, threads).judged(samples.split, samples.metric)
    except EasyCompressError:
        raise
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's own errors share no public base class
        return worse(QUALITY, "fails", limit, f"the model doesn't run on the samples: {one_line(error, 160)}")
    if answers is not None and not np.isfinite(answers).all():
        broken = int((~np.isfinite(answers)).reshape(len(answers), -1).any(1).sum())
        reason = f"{broken} of the {len(answers)} answers are NaN or infinite"
        return worse(QUALITY, "no number", limit, reason)
    agreement = None
    if samples.metric.binary and answers is not None and len(known.after) == len(answers):
        agreement = float(np.mean(answers.argmax(1) == known.after))
    return _compared(samples.scores, scores, samples.metric, floor, agreement)


def drifted(model: Path, threads: int, samples: Samples) -> int:
    """Return on how many samples a model's scores aren't the stored ones."""
    scores, _ = Runtime(model, threads).judged(samples.split, samples.metric)
    changed = scores != samples.scores
    return int((changed if changed.ndim == 1 else changed.any(axis=1)).sum())


def check_saved(baseline: Reported, known: Predictions, own: Predictions, floor: Floor) -> Check:
    """Compare the scores stored with a result with the baseline's. Raises BadInput where they don't pair up."""
    told = "quality can't be compared; give the --data of the baseline, so that the model is run on it"
    count = len(known.scores_after)
    if own.scores_after.shape != known.scores_after.shape:
        raise BadInput(
            f"the result's report split holds {len(own.scores_after)} samples, the baseline's {count}; {told}"
        )
    if own.targets.shape != known.targets.shape or not np.array_equal(own.targets, known.targets):
        raise BadInput(f"the result was judged by other labels than the baseline; {told}")
    if len(own.samples) and len(known.samples) and others(known.samples, own.samples) > FEW * count:
        raise BadInput(f"the result was judged on other samples than the baseline; {told}")
    metric, scores = make_metric(baseline, known, None, Facts(shape=(1,) * (1 + known.scores_after.ndim)))
    same = metric.binary and len(own.after) == len(known.after) > 0
    agreement = float(np.mean(own.after == known.after)) if same else None
    return _compared(scores, own.scores_after, metric, floor, agreement)


def _compared(before: Array, after: Array, metric: Metric, floor: Floor, agreement: float | None) -> Check:
    """Judge the paired drop by its estimate, and tell its bound."""
    allowed = floor.allowed_drop(metric.quality(before), higher_is_better=metric.higher_is_better)
    drop = paired_drop(before, after, metric, allowed)
    percent = metric.percent
    told = "unknown" if drop.upper_95 is None else units.drop(drop.upper_95, percent=percent)
    bound = (
        f"at most {told} with 95 % confidence" if drop.upper_95 is not None else "too few samples changed for a bound"
    )
    measured = units.quality(metric.quality(after), percent=percent)
    was = units.quality(metric.quality(before), percent=percent)
    value, limit = units.apart(drop.estimate, allowed, percent=percent)
    passed = within(drop.estimate, allowed)
    verb = "drop" if drop.estimate >= 0 else "better by"
    points = f"{value.lstrip('-')}{' points' if percent else ''}"
    reason = f"{metric.name} {measured}, was {was}: {verb} {points} (allowed {limit}), {bound}"
    reason += f"; {drop.worse} of {drop.n} samples worse, {drop.better} better"
    if agreement is not None:
        reason += f"; {units.share(agreement)} of the answers are the baseline's"
    most = f"drop {limit}{' points' if percent else ''}"
    return Check(QUALITY, passed, f"{measured}, {verb} {points}", most, reason)
