"""Plans: ordered actions, and the decisions that led to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import SerializerFunctionWrapHandler, model_serializer

from easycompress.core.goal import Frozen

if TYPE_CHECKING:
    from typing_extensions import Self

    from easycompress.core.knobs import Knob


class Action(Frozen):
    """The settings of one technique. Each technique subclasses it; the subclass picks the technique that runs it.

    `kind` is the technique's name in recipes. A technique with a dial has a field `strength` in [0, 1], where 0 leaves
    the model as it is; None means that the executor finds it by measuring. What the executor must know beyond that are
    the class variables and methods here; it knows no technique by name.

    `trains`: it spends epochs, and has a field `epochs`. `recovers`: it only undoes the damage of actions before it.
    `finishes`: it comes after all training and is cheap to repeat. `effort`: its share of the epochs is proportional to
    that; `patience`: how many times longer than usual its training still helps. `slack`: by which factor a trained file
    may turn out larger than the untrained one of the same settings. `restructures`: it changes which modules and widths
    there are; where strength 0 already fails on a model, that model can't be treated so. `integers`: it makes the
    runtime compute with fewer bits, so that a floor may hold without it and the file may be slower with it.
    """

    kind: str

    trains: ClassVar[bool] = False
    recovers: ClassVar[bool] = False
    finishes: ClassVar[bool] = False
    effort: ClassVar[float] = 1.0
    patience: ClassVar[float] = 1.0
    slack: ClassVar[float] = 1.002
    restructures: ClassVar[bool] = False
    integers: ClassVar[bool] = False

    def describe(self) -> str:
        """Return the action with all its settings as one line."""
        return self._line(self.model_dump(exclude={"kind"}, exclude_none=True))

    def brief(self) -> str:
        """Return the action as one short line for people: the settings that aren't the usual ones."""
        return self._line(self.model_dump(exclude={"kind"}, exclude_none=True, exclude_defaults=True))

    def _line(self, settings: dict[str, object]) -> str:
        listed = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in settings.items())
        return f"{self.kind} ({listed})" if listed else self.kind

    @property
    def searched(self) -> bool:
        """Tell whether it has a dial that nobody has set."""
        return "strength" in type(self).model_fields and getattr(self, "strength", 0.0) is None

    @property
    def pauses(self) -> int:
        """Return how many short recoveries it wants between its own steps."""
        return 0

    def at(self, strength: float) -> Self | None:
        """Return the action with an unset dial set, None where that leaves the model as it is."""
        if not self.searched:
            return self
        return self.model_copy(update={"strength": strength}) if strength > 0 else None

    def amount(self, strength: float) -> str:
        """Return in words what a strength means."""
        return f"of strength {strength:.3f}"

    def widened(self) -> Self:
        """Return the action for the whole model, where it is about a part of it."""
        return self

    def untrained(self) -> Self | None:
        """Return what stands for the action where only bytes and speed are asked for; None: nothing."""
        return None if self.recovers else self

    def instead(self) -> Action | None:
        """Return what takes its place on a model that it can't treat; None: nothing."""
        return None

    def insisting(self) -> Self:
        """Return the action that trains to the end of its epochs even where the floor is met early."""
        return self

    def further(self) -> Self:
        """Return the action that goes on with weights which it has trained before."""
        return self.insisting()

    def settled(self, epochs: int) -> Self:
        """Return the action with the epochs it may train, so that a recipe made from it says so."""
        return self.model_copy(update={"epochs": epochs}) if self.trains and epochs else self

    def variants(self) -> tuple[Self, ...]:
        """Return the action and other settings worth a try on the same weights where it breaks the floor."""
        return (self,)

    def knobs(self) -> dict[str, Knob]:
        """Return what `--search` may turn, by the names of the settings; nothing where the plan's own values stay."""
        return {}

    @model_serializer(mode="wrap")
    def _without_unturned(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out knobs that are None: what is kept under an action's settings is found again by later versions."""
        data: dict[str, Any] = handler(self)
        unturned = {name for name in self.knobs() if data.get(name, 0) is None}
        return {name: value for name, value in data.items() if name not in unturned}


def ramp(strength: float, start: float, end: float = 1.0) -> float:
    """Return how far a strength is on the way from `start` to `end`, in [0, 1]."""
    return min(max((strength - start) / (end - start), 0.0), 1.0)


AnyAction = TypeVar("AnyAction", bound=Action)


class Decision(Frozen):
    """One rule that was asked: its name, its question, the answer, and the measured evidence behind the answer."""

    rule: str
    question: str
    answer: str
    evidence: str


class Plan(Frozen):
    """What will be done and why.

    `quick` is a chain of actions without training that is tried first: where it meets the goal `steps` aren't needed.
    `lesser` is one that goes on where `steps` miss the goal, for as much as the floor permits: it changes the structure
    in the way that loses less there. `last` is one that is tried where all that misses the goal.
    `notes` are plain sentences: fallbacks to the nearest technique that exists, what was left out and for what reason,
    suggestions. `epochs` is how many of the original model's training epochs the budget was found to pay for.
    """

    steps: tuple[Action, ...]
    decisions: tuple[Decision, ...]
    notes: tuple[str, ...] = ()
    quick: tuple[Action, ...] = ()
    lesser: tuple[Action, ...] = ()
    last: tuple[Action, ...] = ()
    epochs: float = 0.0
