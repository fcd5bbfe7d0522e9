"""A plan as a function of one number: the strength of the actions whose dial nobody has set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easycompress.core.knobs import Knob, Value
    from easycompress.core.plan import Action


@dataclass(frozen=True)
class Dial:
    """The actions of a plan as a function of the strength of those that are searched; at 0 they are left out."""

    actions: tuple[Action, ...]

    def knobs(self) -> dict[str, Knob]:
        """Return what a tuning may turn, as `kind.setting`; a second action of one kind isn't tuned."""
        found: dict[str, Knob] = {}
        for action in reversed(self.actions):
            found |= {f"{action.kind}.{name}": knob for name, knob in action.knobs().items()}
        return found

    def turned(self, values: Mapping[str, Value]) -> Dial:
        """Return the dial with settings changed, by `kind.setting`."""
        turned = list(self.actions)
        for kind in {name.partition(".")[0] for name in values}:
            place = next(index for index, action in enumerate(turned) if action.kind == kind)
            own = {name.partition(".")[2]: value for name, value in values.items() if name.partition(".")[0] == kind}
            turned[place] = turned[place].model_copy(update=own)
        return Dial(tuple(turned))

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

    def taught_as(self, other: Dial) -> Dial:
        """Return the dial with what changes no structure as `other` has it."""
        own = (action for action in self.actions if action.restructures)
        return Dial((*own, *(action for action in other.actions if not action.restructures)))

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
    """Write into each action how long it may train, so that a recipe made from it says so.

    Where each says so already, and there are as many `epochs`, that stays.
    """
    said = [getattr(action, "epochs", None) or 0 for action in actions if action.trains]
    if len(said) > 1 and all(said) and sum(said) <= epochs:
        return list(actions)
    total = sum(action.effort for action in actions if action.trains)
    return [
        action.settled(max(1, round(epochs * action.effort / total)) if epochs else 0) if action.trains else action
        for action in actions
    ]
