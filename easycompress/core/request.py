"""Everything that one run was asked for, as text and numbers: JSON-able, holds no model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from easycompress.core.goal import Frozen

MOST_REPEATS = 100
"""Seeds of one run: each gets its part of the budget."""


class Request(Frozen):
    """The inputs of one run, in the user's own words. Keyword and field names are the flags with underscores.

    `model` is a path, or a label when the model was handed over in Python. `mean` and `std` are per channel, of images
    scaled to 0..1. `columns`: a table's inputs and label, `text,label`. `shape`: that of one sample where there is no
    data, `3,224,224`. `batch` and `threads`: what latency is judged at; `threads` 0 means the physical cores.
    `repeats` runs use the seeds from `seed` on; `split_seed`: see `drawn_by`. `search`: how many trials, or how long.
    """

    model: str
    factory: str | None = None
    data: str | None = None
    columns: str | None = None
    shape: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    augment: str = "none"
    metric: str | None = None
    loss: str | None = None
    objective: str = "size"
    target: str | None = None
    max_drop: str | None = None
    min_quality: str | None = None
    format: str = "onnx"
    budget: str = "20min"
    backend: Literal["cpu", "gpu"] = "cpu"
    batch: int = Field(default=1, ge=1)
    threads: int = Field(default=0, ge=0)
    certify: bool = False
    seed: int = Field(default=0, ge=0, lt=2**32)
    split_seed: int | None = Field(default=None, ge=0, lt=2**32)
    repeats: int = Field(default=1, ge=1, le=MOST_REPEATS)
    search: str | None = None
    trust_pickle: bool = False
    force: bool = False
    recipe: str | None = None
    also: str | None = None
    out: str | None = None

    @property
    def drawn_by(self) -> int:
        """The seed that data are split and drawn by: fixed, it lets `seed` vary what training alone makes random."""
        return self.seed if self.split_seed is None else self.split_seed
