"""What a plan rests on, before any rule is asked: the goal, the original, the means and the data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easycompress.report import units
from easycompress.report.reading import floor_words, target_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easycompress.core.goal import Budget, Goal
    from easycompress.core.request import Request
    from easycompress.core.task import Metric


@dataclass(frozen=True)
class Brief:
    """The goal, and what is given to reach it with.

    `quality` is the original's on *select* and `allowed` the permitted drop, both in the metric's unit. `value` is the
    original's objective in its own unit, `needed` the ratio that the target asks for, infinite for the most. `epochs`
    is how many of the original model's training epochs the budget pays for. `threads` is what latency is judged at.
    `samples` counts train, calibration, select and report. `notes` are sentences about model and data.
    """

    request: Request
    goal: Goal
    metric: Metric
    budget: Budget
    quality: float
    value: float
    allowed: float
    needed: float
    epochs: float
    threads: int
    samples: Mapping[str, int]
    notes: tuple[str, ...]

    def rows(self) -> list[tuple[str, str, str]]:
        """Return what is asked and what is given, as lines of a table: label, asked, given."""
        goal, metric, request = self.goal, self.metric, self.request
        floor = floor_words(goal.floor, percent=metric.percent, higher_is_better=metric.higher_is_better)
        sure = ", at 95 % confidence" if request.certify else ""
        packed = ", packed" if goal.format == "packed" else ""
        return [
            (goal.objective, f"{target_words(goal.target, goal.objective)}{packed}", self._objective()),
            (metric.name, f"{floor}{sure}", self._quality()),
            ("budget", self.budget.text, self._training()),
            ("backend", request.backend, f"latency at batch {request.batch}, {units.threads(self.threads)}"),
            *[(name, "", f"{units.count(number)} samples{self._of(name)}") for name, number in self.samples.items()],
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the same for machines; None stands for no limit."""
        goal, metric = self.goal, self.metric
        return {
            "request": self.request.model_dump(mode="json"),
            "goal": {
                "objective": goal.objective,
                "target": goal.target.text,
                "ratio_needed": self.needed if math.isfinite(self.needed) else None,
                "floor": goal.floor.text,
                "allowed_drop": self.allowed if math.isfinite(self.allowed) else None,
                "format": goal.format,
                "certify": self.request.certify,
            },
            "metric": {"name": metric.name, "percent": metric.percent, "higher_is_better": metric.higher_is_better},
            "baseline": {"quality": self.quality, "objective": self.value},
            "resources": {
                "budget": self.budget.text,
                "epochs_affordable": self.epochs,
                "backend": self.request.backend,
                "batch": self.request.batch,
                "threads": self.threads,
            },
            "data": dict(self.samples),
        }

    def _objective(self) -> str:
        """Return the original's value, and what the target makes of it."""
        objective = self.goal.objective
        if 1 < self.needed < math.inf:
            return units.change(self.value, self.value / self.needed, objective)
        now = f"{units.count(self.value)} bytes" if objective == "size" else units.amount(self.value, objective)
        return f"{now}, which meets it already" if self.needed <= 1 else now

    def _quality(self) -> str:
        """Return the original's quality, and the least that the floor permits."""
        worst = self.quality - self.allowed if self.metric.higher_is_better else self.quality + self.allowed
        now, floor = (units.quality(value, percent=self.metric.percent) for value in (self.quality, worst))
        if not math.isfinite(self.allowed):
            return "no data: quality isn't judged"
        return f"{now} on select, floor {floor}"

    def _training(self) -> str:
        """Return what the budget pays for."""
        if self.budget.kind == "none":
            return "no training"
        if not self.samples["train"]:
            return "no training: there is no data for it"
        if self.budget.kind == "epochs":
            return f"{units.count(self.epochs)} epochs over all attempts"
        return f"about {units.number(self.epochs, 2)} epochs of the original model"

    def _of(self, split: str) -> str:
        """Return what a split is a part of; nothing for one that stands by itself."""
        return f" of {'train' if self.samples['train'] else 'select'}" if split == "calibration" else ""
