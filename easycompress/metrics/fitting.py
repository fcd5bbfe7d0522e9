"""A metric by name becomes the metric of a task: of its outputs' shape, and with what its answers are judged by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from easycompress.core.errors import BadInput
from easycompress.metrics import boxes, classes, language, squad, values

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from torch import Tensor

    from easycompress.core.references import References
    from easycompress.core.task import Metric
    from easycompress.metrics.boxes import Decode

Array: TypeAlias = "np.ndarray[Any, Any]"

_REMEDIES = {
    "squad-f1": "the texts behind the tokens: give --data with the columns question, context, answers",
    "squad-em": "the texts behind the tokens: give --data with the columns question, context, answers",
    "map": "a detector of torchvision (SSD, SSDlite, RetinaNet, FCOS), whose anchors decode its answer",
    "map50": "a detector of torchvision (SSD, SSDlite, RetinaNet, FCOS), whose anchors decode its answer",
}


@dataclass(frozen=True)
class Facts:
    """What a metric may need beside outputs and targets.

    `shape`: of the outputs, (N, ...). `references`: of questions. `names`: of the classes, by number. `spread`: the
    variance of the original's own values. `decode`: raw answers of a detector -> boxes.
    """

    shape: tuple[int, ...]
    references: References | None = None
    names: tuple[str, ...] = ()
    spread: float = 1.0
    decode: Decode | None = None


def lacking(name: str) -> Callable[[Tensor, Tensor], Array]:
    """Return scores that refuse: what a metric is before it is fitted with what it needs."""

    def scores(_outputs: Tensor, _targets: Tensor) -> Array:
        raise BadInput(f"--metric {name}: needs {_REMEDIES[name]}; or give --metric file.py:function")

    return scores


def fitted(metric: Metric, facts: Facts) -> tuple[Metric, str | None]:
    """Return the metric for a task, and a sentence where one name may mean several things."""
    name, note = metric.name, None
    if name in ("accuracy", "agreement") and len(facts.shape) > 2:  # noqa: PLR2004 - (N, C)
        metric = replace(metric, scores=classes.correct_positions, binary=False, of_means=classes.share)
    elif name in ("squad-f1", "squad-em") and facts.references is not None:
        compare = squad.overlap if name == "squad-f1" else squad.exact
        metric = replace(metric, scores=squad.squad(facts.references, compare))
    elif name == "token-f1" and language.speaks_of_entities(facts.names):
        metric = replace(metric, scores=language.entity_counts(facts.names), of_means=language.entity_f1)
        note = "token-f1 is F1 of whole entities, by the model's own names of its tags"
    elif name == "token-f1":
        note = "token-f1 is the mean of the classes' F1, a token each, without class 0"
    elif name == "fidelity":
        metric = replace(metric, scores=values.explained(facts.spread))
    elif name in ("map", "map50") and facts.decode is not None:
        metric = replace(metric, scores=boxes.matches(facts.decode))
    return metric, note
