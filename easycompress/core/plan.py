"""Plans: ordered actions, and the decisions that led to them."""

from __future__ import annotations

from typing import TypeVar

from easycompress.core.goal import Frozen


class Action(Frozen):
    """The settings of one technique. Each technique subclasses it; the subclass picks the technique that runs it.

    `kind` is the technique's name in recipes. A technique with a dial has a field `strength` in [0, 1], where 0 leaves
    the model as it is; None means that the executor finds it by measuring.
    """

    kind: str

    def describe(self) -> str:
        """Return the action as one short line for people."""
        settings = self.model_dump(exclude={"kind"}, exclude_none=True)
        listed = ", ".join(f"{key} {value}" for key, value in settings.items())
        return f"{self.kind} ({listed})" if listed else self.kind


AnyAction = TypeVar("AnyAction", bound=Action)


class Decision(Frozen):
    """One rule that was asked: its name, its question, the answer, and the measured evidence behind the answer."""

    rule: str
    question: str
    answer: str
    evidence: str


class Plan(Frozen):
    """What will be done and why.

    `notes` are plain sentences: fallbacks to the nearest technique that exists, what was left out and for what reason,
    suggestions.
    """

    steps: tuple[Action, ...]
    decisions: tuple[Decision, ...]
    notes: tuple[str, ...] = ()
