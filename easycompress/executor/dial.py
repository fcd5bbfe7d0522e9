"""A plan as a function of one number: the strength of the actions whose dial nobody has set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easycompress.core.plan import Action


@dataclass(frozen=True)
class Dial:
    """The actions of a plan as a function of the strength of those that are searched; at 0 they are left out."""

    actions: tuple[Action, ...]

    @property
    def trains(self) -> bool:
        """Tell whether there is an action that trains."""
        return any(action.trains for action in self.actions)

    def floating(self) -> Dial:
        """Return the dial without integers: that of a float model."""
        return Dial(tuple(action for action in self.actions if not action.integers))

    def everywhere(self) -> Dial:
        """Return the dial that treats every layer, whatever family the plan chose."""
        return Dial(tuple(action.widened() if action.searched else action for action in self.actions))

    @property
    def fixed(self) -> bool:
        """Tell whether there is nothing to search: a replayed recipe, or a plan without pruning."""
        return not any(action.searched for action in self.actions)

    @property
    def slack(self) -> float:
        """The factor by which a trained file may turn out larger than the untrained one."""
        return max(action.slack for action in self.actions)

    def at(self, strength: float) -> tuple[Action, ...]:
        """Return the actions with that strength."""
        return tuple(chosen for action in self.actions if (chosen := action.at(strength)) is not None)

    def without_training(self, strength: float) -> tuple[Action, ...]:
        """Return the actions that change the model at once; what needs no recovery shouldn't spend time on it."""
        return tuple(action for action in self.at(strength) if strength > 0 or not action.recovers)


def endings(actions: Sequence[Action]) -> list[list[Action]]:
    """Return the ways to end an attempt, in order: as planned first, others where that breaks the floor."""
    last = next((action for action in actions if action.finishes), None)
    return [[]] if last is None else [[variant] for variant in last.variants()]


def settled(actions: Sequence[Action], epochs: int) -> list[Action]:
    """Write into each action how long it may train, so that a recipe made from it says so."""
    total = sum(action.effort for action in actions if action.trains)
    return [
        action.settled(max(1, round(epochs * action.effort / total)) if epochs else 0) if action.trains else action
        for action in actions
    ]
