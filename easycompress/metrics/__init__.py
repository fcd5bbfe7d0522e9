"""Metrics and losses by name."""

from __future__ import annotations

from easycompress.core.task import Metric
from easycompress.metrics import boxes, classes, language, values
from easycompress.metrics.fitting import Facts, fitted, lacking
from easycompress.metrics.losses import CLASS_LOSSES, LOSSES
from easycompress.metrics.own import user_metric

__all__ = [
    "CLASS_LOSSES", "CLASS_METRICS", "DETECTION", "LOSSES", "METRICS", "OWN_ANSWERS", "UNTAUGHT", "Facts",
    "default_loss", "fitted", "user_metric",
]  # fmt: skip

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", classes.correct, scale=100.0, percent=True, binary=True),
        Metric("agreement", classes.correct, scale=100.0, percent=True, binary=True),
        Metric("top5", classes.correct_top5, scale=100.0, percent=True, binary=True),
        Metric("f1", classes.counts, scale=100.0, percent=True, of_means=classes.f1),
        Metric("token-f1", classes.counts, scale=100.0, percent=True, of_means=classes.f1_without_first),
        Metric("squad-f1", lacking("squad-f1"), scale=100.0, percent=True),
        Metric("squad-em", lacking("squad-em"), scale=100.0, percent=True, binary=True),
        Metric("perplexity", language.surprise, higher_is_better=False, of_means=language.perplexity),
        Metric("miou", classes.counts, scale=100.0, percent=True, of_means=classes.miou),
        Metric("map", lacking("map"), scale=100.0, percent=True, of_rows=boxes.mean_precision),
        Metric("map50", lacking("map50"), scale=100.0, percent=True, of_rows=boxes.precision_at_half),
        Metric("mse", values.squared_error, higher_is_better=False),
        Metric("mae", values.absolute_error, higher_is_better=False),
        Metric("rmse", values.squared_row, higher_is_better=False, of_means=values.root),
        Metric("r2", values.moments, of_means=values.r2),
        Metric("spearman", values.likeness_row, of_rows=values.spearman),
        Metric("fidelity", values.explained(1.0), scale=100.0, percent=True),
    )
}
"""`agreement` and `fidelity` compare with the original model's own answers: what there is without labels.

Agreement is accuracy against its classes, fidelity the share of its values' variance that is explained. Some must be
fitted() to the shape of the outputs and to what the task knows before they score anything.
"""

OWN_ANSWERS = frozenset({"agreement", "fidelity"})
"""Metrics whose targets are the original's own answers."""

DETECTION = frozenset({"map", "map50"})
"""Metrics whose targets are boxes, which none of the losses here takes."""

UNTAUGHT = OWN_ANSWERS | DETECTION
"""Metrics from whose targets none of the losses here learns anything: the original's answers teach."""

CLASS_METRICS = frozenset({"accuracy", "agreement", "top5", "f1", "token-f1", "perplexity", "miou"})
"""Metrics of class scores: targets are numbers of classes."""

_LOSSES = {"mae": "mae", "spearman": "cosine"} | dict.fromkeys(("mse", "rmse", "r2", "fidelity", "map", "map50"), "mse")


def default_loss(metric: Metric) -> str:
    """Return the name of the loss that goes with a metric when none is named."""
    return _LOSSES.get(metric.name, "cross-entropy")
