"""A rule: one question about the heuristics, with its threshold and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from easycompress.selection.heuristics import Heuristics

Answer = tuple[str, str]
"""The answer, one of the branches of the tree that asks, and the evidence for it in one phrase with numbers."""


@dataclass(frozen=True)
class Rule:
    """`ask` is a pure, total function of the heuristics. `threshold` and `source` are sentences for people."""

    name: str
    question: str
    ask: Callable[[Heuristics], Answer]
    threshold: str
    source: str
