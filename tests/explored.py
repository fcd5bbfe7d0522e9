"""What the tests of exploration share: few curves, a listener, and a finished exploration that can be repeated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from easycompress import explore
from easycompress.exploration.plan import Curve

if TYPE_CHECKING:
    from pathlib import Path

    from tiny import Tiny

    from easycompress.exploration.run import Exploration

FEW = (
    Curve("quantize", "Q: codebook", (3.01, 1.01)),
    Curve("int8", "int8", (0,), joined=False),
    Curve("structured", "structured pruning", (0.5,)),
)


@dataclass
class Heard:
    """Everything that was told."""

    facts: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.facts.append(text)

    def now(self, text: str) -> None:
        """Ignore."""


@dataclass(frozen=True)
class Explored:
    """A finished exploration: how to repeat it, and what came out."""

    task: Tiny
    flags: dict[str, Any]
    found: Exploration

    def again(self, **changes: Any) -> Exploration:
        return explore(self.task.model(), **(self.flags | changes))


def points_of(out: Path) -> list[str]:
    return sorted(path.parent.name for path in out.glob("points/*/point.json"))
