"""The targets that predictions are held to, and the settings, of other models, that their constants were fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One request: a model of the zoo, and the flags that both commands get."""

    model: str
    objective: str
    target: str
    budget: str
    max_drop: str = "1%"
    format: str = "onnx"

    @property
    def name(self) -> str:
        """Return the row's name."""
        kind = "packed size" if self.format == "packed" else self.objective
        return f"{self.model} {kind} {self.target}, {self.budget} within {self.max_drop}"

    @property
    def flags(self) -> dict[str, Any]:
        """Return the flags of the goal."""
        return {
            "objective": self.objective, "target": self.target, "budget": self.budget, "max_drop": self.max_drop,
            "format": self.format,
        }  # fmt: skip


ROWS = (
    Row("lenet5", "size", "8x", "6ep"),
    Row("lenet5", "size", "20x", "none"),
    Row("lenet5", "size", "40x", "none"),
    Row("lenet5", "size", "60x", "none", format="packed"),
    Row("lenet5", "compute", "3x", "8ep", "0.5%"),
    Row("resnet20", "size", "3.5x", "none"),
    Row("resnet20", "size", "6x", "none", "2%"),
    Row("minilm", "size", "5x", "none"),
    Row("minilm", "size", "3.5x", "none"),
    Row("lenet5", "size", "max", "none"),
    Row("lenet5", "size", "100x", "3ep"),
    Row("lenet5", "compute", "6x", "4ep"),
    Row("resnet20", "compute", "1.5x", "2ep"),
)
"""Predicted and then carried out."""

FIT = (
    Row("lenet300", "size", "10x", "20ep"),
    Row("lenet300", "size", "25x", "20ep"),
    Row("lenet300", "size", "30x", "20ep", format="packed"),
    Row("lenet300", "size", "100x", "20ep", format="packed"),
    Row("lenet300", "compute", "5x", "20ep"),
)
"""Recovered for a short and for a long time; none of their models is among those that are judged."""
