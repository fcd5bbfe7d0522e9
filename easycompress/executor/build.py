"""Actions applied one after the other to a copy of the model."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from easycompress.artifact.large import copied
from easycompress.artifact.write import write_model
from easycompress.core.ledger import spending
from easycompress.techniques import technique_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import nn

    from easycompress.artifact.exports import Exports
    from easycompress.codes.base import Code
    from easycompress.core.outcome import CurvePoint
    from easycompress.core.plan import Action
    from easycompress.core.task import Task
    from easycompress.technique import Context, FilePass


@dataclass(frozen=True)
class Stage:
    """What one action did: `quality` on *select* in PyTorch (NaN when nobody asked), `measured` objective and ratio.

    `papers` are ratios by the formulas of the papers, by name, of actions that have them. `curve` is how its training
    went, epoch by epoch.
    """

    action: Action
    quality: float
    epochs: int
    seconds: float
    measured: tuple[float, float] | None
    papers: dict[str, float] = field(default_factory=dict)
    curve: tuple[CurvePoint, ...] = ()


@dataclass
class Built:
    """A treated copy of the model, and what it takes to write it and to rebuild it."""

    model: nn.Module
    records: list[dict[str, Any]] = field(default_factory=list)
    codes: dict[str, Code] = field(default_factory=dict)
    passes: list[FilePass] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        """Return the training epochs that went into it."""
        return sum(stage.epochs for stage in self.stages)

    def then(
        self,
        actions: Sequence[Action],
        context: Context,
        look: Callable[[Built, Action], tuple[float, float] | None] | None = None,
        *,
        final: bool = False,
    ) -> Built:
        """Return a copy with further actions applied; see build().

        `final`: what the last of them makes is judged as a file, and nobody asks for its quality in PyTorch.
        """
        built = Built(copied(self.model), list(self.records), dict(self.codes), list(self.passes), list(self.stages))
        for action in actions:
            begin, before = time.perf_counter(), len(context.curve)
            with spending("method"):
                applied = technique_for(action).apply(built.model, action, built.context_for(action, context))
            seconds = time.perf_counter() - begin
            built.model = applied.model.eval()
            built.codes |= applied.codes
            built.records.append({"kind": action.kind, "record": applied.record})
            if applied.file_pass is not None:
                built.passes.append(applied.file_pass)
            evaluate = None if final and action is actions[-1] else context.evaluate
            quality = float("nan") if evaluate is None else evaluate(built.model)
            measured = None if look is None else look(built, action)
            papers = dict(applied.record.get("papers", {}))
            curve = tuple(context.curve[before:])
            built.stages.append(Stage(action, quality, applied.epochs, seconds, measured, papers, curve))
        return built

    def context_for(self, action: Action, context: Context) -> Context:
        """Return what `action` may use: the second of a kind has epochs and training states of its own."""
        place = len(self.records)
        if not action.trains or all(entry["kind"] != action.kind for entry in self.records):
            return context
        kept = context.checkpoint
        checkpoint = None if kept is None else lambda part: kept(f"{place}-{part}")
        return replace(context, epochs=getattr(action, "epochs", None) or context.epochs, checkpoint=checkpoint)

    def write(self, task: Task, path: Path, *, packed: bool = False, exports: Exports | None = None) -> Path:
        """Write the file that would be delivered to `path`; return the one whose bytes count, see write_model."""
        return write_model(self.model, task.example, path, self.passes, self.codes, packed=packed, exports=exports)


def original_of(task: Task) -> Built:
    """Return the untreated model, ready for actions."""
    return Built(copied(task.model).eval())


def build(
    task: Task,
    actions: Sequence[Action],
    context: Context,
    look: Callable[[Built, Action], tuple[float, float] | None] | None = None,
) -> Built:
    """Apply `actions` in order to a copy of the task's model.

    `look(built, action)` is called after each action, before its stage is noted; it may return (objective, ratio).
    """
    return original_of(task).then(actions, context, look)
