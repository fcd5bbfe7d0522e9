"""estimate(): what a target would cost in quality, and what a floor can buy, from probes of seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from easycompress.assemble import make_the_task
from easycompress.calling import as_flags, handed, name_of, own_randomness, scratch_folder
from easycompress.core.errors import BadInput, CannotCompress
from easycompress.core.goal import OBJECTIVES, parse_objective
from easycompress.core.progress import Progress, Silent
from easycompress.estimation.bench import BRIEF, THOROUGH, Bench
from easycompress.estimation.calibration import CALIBRATION
from easycompress.estimation.chain import Chain
from easycompress.estimation.outcome import AtTarget, Estimates, WithinFloor
from easycompress.estimation.questions import at_target, within_floor
from easycompress.estimation.words import summary
from easycompress.executor.journal import open_journal
from easycompress.intake.config import make_request
from easycompress.planning import make_plan
from easycompress.prepare import Prepared, aimed, prepare

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.plan import Action, Plan
    from easycompress.core.request import Request
    from easycompress.executor.journal import Journal

ALL = "all"
"""In place of an objective: every one, and size also packed."""

TARGETS = {
    ("size", "onnx"): ("4x", "10x", "20x"),
    ("size", "packed"): ("10x", "30x"),
    ("latency", "onnx"): ("2x", "3x"),
    ("compute", "onnx"): ("2x", "4x"),
    ("energy", "onnx"): ("2x",),
}
"""What is asked where no target is given, by objective and format."""

FLOORS = ("0.5", "1", "2")
"""Permitted drops that are asked about: percentage points, or percent of the baseline."""

MOST = "max"


def estimate(
    model: nn.Module | str | Path,
    *,
    train: object = None,
    validation: object = None,
    test: object = None,
    progress: Progress | None = None,
    **flags: Any,  # noqa: ANN401 - the command line's flags with underscores
) -> Estimates:
    """Predict what `compress` with the same flags would come to, without compressing: seconds to a few minutes.

    With `target` one answer: the drop at that target and the chance that the run ends with `met`; for `max` the ratio
    that the floor buys. Without it a table: of each `objective` (`all`, the default, or one) several targets against
    the floor (`max_drop`, one point unless said), and what floors of 0.5, 1 and 2 points buy. Model, data and further
    flags are those of compress(). Nothing is written.

    Raises BadInput and CannotCompress with one line, as compress() would.
    """
    began = time.monotonic()
    progress = progress or Silent()
    splits, flags = handed((train, validation, test), flags)
    request, base = make_request(name_of(model), as_flags(flags), use_file=not isinstance(model, nn.Module))
    _check(request, blind=request.data is None and not any(split is not None for split in splits))
    whole = request.target is None
    first = request.model_copy(update={"objective": "size" if request.objective == ALL else request.objective})
    first = first.model_copy(update={"target": request.target or MOST})
    with scratch_folder() as scratch, own_randomness(request.seed):
        task = make_the_task(model, first if _has_floor(first) else _floored(first, "1%rel"), base, splits)
        if not _has_floor(first):
            first = _floored(first, "1%" if task.metric.percent else "1%rel")
        progress.now("measuring the original")
        prepared = prepare(task, first, scratch)
        if prepared.described is not None:
            raise BadInput("estimate: weights over 2 GB can't be tried in seconds; ask compress with --budget none")
        journal = open_journal(scratch / "probes", {}, resume=False, began=began)
        desk = _Desk(prepared, first, base, journal, progress, began, whole)
        objectives = OBJECTIVES if _everything(request) else (parse_objective(first.objective),)
        answers = [desk.table(objectives, request)] if whole else [desk.question(o, request) for o in objectives]
        targets = tuple(row for rows, _ in answers for row in rows)
        floors = tuple(row for _, rows in answers for row in rows)
        made = Estimates(
            request=request.model_dump(mode="json"),
            metric=task.metric.name,
            percent=task.metric.percent,
            quality=prepared.quality,
            floor=first.max_drop or first.min_quality or "",
            allowed=prepared.allowed,
            targets=targets,
            floors=floors,
            notes=(task.data.note, *task.notes, *desk.notes),
            calibration=CALIBRATION,
            seconds=round(time.monotonic() - began, 1),
        )
        return made if whole else made.model_copy(update={"summary": summary(made)})


def _check(request: Request, *, blind: bool) -> None:
    """Raise BadInput for what can't be estimated, before anything is loaded."""
    if blind:
        raise BadInput("estimate: no data given, so no drop can be predicted; add --data")
    if request.recipe is not None:
        raise BadInput("estimate: --recipe says what to do already; compress carries it out and measures it")
    if request.objective != ALL:
        parse_objective(request.objective)


def _everything(request: Request) -> bool:
    return request.objective == ALL or (request.target is None and "objective" not in request.model_fields_set)


def _has_floor(request: Request) -> bool:
    return request.max_drop is not None or request.min_quality is not None


def _floored(request: Request, max_drop: str) -> Request:
    return request.model_copy(update={"max_drop": max_drop})


@dataclass
class _Desk:
    """Where questions about one task are answered. What one question tried the next ones know.

    `whole`: a whole table is asked for, so that each answer may take less.
    """

    prepared: Prepared
    request: Request
    base: Path
    journal: Journal
    progress: Progress
    began: float
    whole: bool
    notes: list[str] = field(default_factory=list)
    _benches: dict[str, Bench] = field(default_factory=dict)
    _chains: dict[str, Chain] = field(default_factory=dict)

    def question(self, objective: str, request: Request) -> tuple[list[AtTarget], list[WithinFloor]]:
        """Answer what the request asks of one objective, as exactly as seconds permit."""
        request = self.request.model_copy(update={"objective": objective, "target": request.target})
        prepared = aimed(self.prepared, request)
        chains = self.chains(prepared, request, self.plan(prepared, request))
        if prepared.goal.target.kind == MOST:
            return [], [within_floor(chains, prepared, request, self.began)]
        return [at_target(chains, prepared, request, self.began)], []

    def table(self, objectives: tuple[str, ...], request: Request) -> tuple[list[AtTarget], list[WithinFloor]]:
        """Answer the usual questions about each objective."""
        targets: list[AtTarget] = []
        floors: list[WithinFloor] = []
        for (objective, form), asked in TARGETS.items():
            if objective not in objectives or (form != request.format and not _everything(request)):
                continue
            try:
                self._rows(objective, form, asked, request, targets, floors)
            except CannotCompress as error:
                self.notes.append(f"{objective}: {error}")
        return targets, floors

    def _rows(
        self,
        objective: str,
        form: str,
        asked: tuple[str, ...],
        request: Request,
        targets: list[AtTarget],
        floors: list[WithinFloor],
    ) -> None:
        own = self.request.model_copy(update={"objective": objective, "format": form})
        for floor in self._floors(request):
            most = own.model_copy(update={"target": MOST, **floor})
            prepared = aimed(self.prepared, most)
            self.progress.now(f"{objective}: what a floor of {prepared.goal.floor.text} buys")
            chains = self.chains(prepared, most, self.plan(prepared, most))
            floors.append(within_floor(chains, prepared, most, self.began))
        for target in asked:
            wanted = own.model_copy(update={"target": target})
            prepared = aimed(self.prepared, wanted)
            self.progress.now(f"{objective}: what {target} costs")
            chains = self.chains(prepared, wanted, self.plan(prepared, wanted))
            targets.append(at_target(chains, prepared, wanted, self.began, exactly=False))

    def _floors(self, request: Request) -> list[dict[str, str | None]]:
        """Return the floors of a table: the one that was asked for, else the usual ones, the strictest first."""
        if _has_floor(request):
            return [{}]
        unit = "%" if self.prepared.task.metric.percent else "%rel"
        return [{"max_drop": f"{floor}{unit}"} for floor in FLOORS]

    def plan(self, prepared: Prepared, request: Request) -> Plan:
        """Return the plan that compress() would make."""
        self.progress.now("choosing the plan")
        return make_plan(prepared, request, self.base, time.monotonic() - self.began)

    def chains(self, prepared: Prepared, request: Request, plan: Plan) -> list[Chain]:
        """Return the chains of a plan, the quick one first; one that can't reach the target is widened to all layers.

        One bench judges for all floors, the first of them being the strictest.
        """
        where = f"{prepared.goal.objective} {prepared.goal.format}"
        if where not in self._benches:
            effort = BRIEF if self.whole else THOROUGH
            self._benches[where] = Bench(prepared, request, self.journal.part(f"{where} "), effort)
        found = []
        for actions in filter(None, (plan.quick, plan.steps, plan.last)):
            narrow = self._chain(where, actions)
            wide = narrow.dial.everywhere()
            if narrow.most >= prepared.needed or wide == narrow.dial:
                found.append(narrow)
            else:
                found.append(max(self._chain(where, wide.actions), narrow, key=lambda chain: chain.most))
        return found

    def _chain(self, where: str, actions: tuple[Action, ...]) -> Chain:
        key = f"{where}: {' + '.join(action.describe() for action in actions)}"
        if key not in self._chains:
            self.progress.now(f"{where}: trying {', '.join(action.kind for action in actions)}")
            self._chains[key] = Chain(actions, self._benches[where])
            self.notes.extend(self._chains[key].notes)
        return self._chains[key]
