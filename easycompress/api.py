"""The Python face: compress(), plan(), load()."""

from __future__ import annotations

import copy
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from easycompress.core.errors import BadInput
from easycompress.core.files import read_json
from easycompress.core.outcome import Report, exit_code
from easycompress.core.plan import Plan
from easycompress.core.progress import Progress, Silent
from easycompress.deliver import deliver
from easycompress.executor.clock import Clock
from easycompress.executor.journal import Journal, check_out, open_journal, state_of
from easycompress.executor.replay import load
from easycompress.executor.run import Executed, execute
from easycompress.executor.trainer import Trainer
from easycompress.executor.workshop import Workshop
from easycompress.intake.config import make_request
from easycompress.intake.data import Raw, load_data
from easycompress.intake.models import load_model
from easycompress.intake.objects import as_split
from easycompress.intake.task import find_metric, make_task
from easycompress.prepare import Prepared, make_goal, make_plan, prepare
from easycompress.report import units
from easycompress.techniques import parse_action

if TYPE_CHECKING:
    from easycompress.core.request import Request
    from easycompress.core.task import Task

__all__ = ["Result", "compress", "load", "plan"]


@dataclass(frozen=True)
class Result:
    """What compress() returns. `model` is the compressed module, `report` the report, `out` the folder of the files.

    The module computes with the stored weights; what the file's integer arithmetic does to activations is in the
    report's numbers, which are the file's.
    """

    model: nn.Module
    report: Report
    out: Path
    exit_code: int
    _temporary: tempfile.TemporaryDirectory[str] | None = None

    def save(self, path: str | Path) -> Path:
        """Copy the result's files into `path`, a new or empty folder or one that easycompress finished."""
        target = Path(path)
        if target.resolve() == self.out.resolve():
            return target
        check_out(target, resume=False, force=False)
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(self.out, target)
        return target


def compress(
    model: nn.Module | str | Path,
    *,
    train: object = None,
    validation: object = None,
    test: object = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    **flags: Any,  # noqa: ANN401 - the command line's flags with underscores
) -> Result:
    """Compress `model` to a goal and return the module, the report and the files.

    `model` is a module, which is never changed, or a path with `factory=`. `train`, `validation`, `test` each take a
    DataLoader, a Dataset, a Hugging Face dataset or a tuple of tensors; `data=` names data as `--data` does. Further
    keywords are the flags of the command line: `objective`, `target`, `max_drop`, `budget`, `certify`, `seed`, ...

    Raises BadInput and CannotCompress (both EasyCompressError) with one line. A goal that was not met is no exception:
    see `report.verdict`.
    """
    began = time.monotonic()
    progress = progress or Silent()
    request, base = make_request(str(model) if isinstance(model, (str, Path)) else _label(model), _flags(flags))
    folder, temporary = _folder(request, out, model)
    if temporary is None:
        check_out(folder, resume=resume, force=request.force)
    if resume and state_of(folder) == "finished":
        return _repeat(folder, request, model, base)
    task = make_the_task(model, request, base, (train, validation, test))
    with tempfile.TemporaryDirectory(prefix="easycompress-") as scratch:
        progress.now("measuring the original")
        prepared = prepare(task, request, Path(scratch))
        progress.say(_baseline_line(prepared))
        first_plan = make_plan(prepared, request, base, time.monotonic() - began)
        journal = open_journal(folder, _fingerprint(request, prepared), resume=resume, began=began)
        try:
            chosen = _journalled(journal, first_plan)
            shop = make_workshop(prepared, request, journal, progress)
            executed = Executed(best=None, steps=(), why="")
            if prepared.needed > 1 and chosen.steps:
                executed = execute(chosen, shop, prepared.needed)
            progress.now("measuring the result on the report split")
            report = deliver(prepared, request, chosen, executed, journal, folder)
        finally:
            journal.close()
    return Result(_module(folder, task.model), report, folder, exit_code(report.verdict), temporary)


def plan(model: nn.Module | str | Path, **keywords: Any) -> tuple[Plan, Prepared]:  # noqa: ANN401 - as compress()
    """Return the plan that compress() would carry out, and what it rests on. Trains nothing and writes nothing."""
    began = time.monotonic()
    splits = tuple(keywords.pop(name, None) for name in ("train", "validation", "test"))
    request, base = make_request(str(model) if isinstance(model, (str, Path)) else _label(model), _flags(keywords))
    task = make_the_task(model, request, base, splits)
    with tempfile.TemporaryDirectory(prefix="easycompress-") as scratch:
        prepared = prepare(task, request, Path(scratch))
        return make_plan(prepared, request, base, time.monotonic() - began), prepared


def make_the_task(model: nn.Module | str | Path, request: Request, base: Path, splits: tuple[object, ...]) -> Task:
    """Read model and data and check them against each other; goals that make no sense are refused first."""
    metric = find_metric(request.metric, base)
    make_goal(request, metric)
    given = dict(zip(("train", "validation", "test"), splits, strict=True))
    if isinstance(model, nn.Module):
        module, size = model, None
    else:
        loaded = load_model(Path(model), request.factory, base, trust_pickle=request.trust_pickle)
        module, size = loaded.model, loaded.checkpoint_bytes
    if any(value is not None for value in given.values()):
        raw = Raw(**{name: None if value is None else as_split(value, name) for name, value in given.items()})
    elif request.data is not None:
        raw = load_data(
            request.data,
            mean=request.mean,
            std=request.std,
            base=base,
            seed=request.seed,
            labelled=metric.name != "agreement",
        )
    else:
        raise BadInput(
            "no data given: add --data (digits, a .npz file, a folder of class folders or parquet files, or "
            "file.py:function), or write it into an easycompress.toml beside the model"
        )
    return make_task(module, raw, request, base, size)


def make_workshop(prepared: Prepared, request: Request, journal: Journal, progress: Progress) -> Workshop:
    """Set up where candidates are made."""
    kept = journal.path("baseline.onnx")
    shutil.copyfile(prepared.baseline, kept)
    clock = Clock(prepared.budget, journal, prepared.reserve)
    trainer = Trainer(
        prepared.task,
        prepared.profile,
        journal,
        clock,
        progress,
        baseline=prepared.scores,
        allowed=prepared.allowed,
        seed=request.seed,
    )
    return Workshop(trainer, prepared.goal, kept, prepared.value, request.certify, request.batch, prepared.threads)


def _flags(flags: dict[str, Any]) -> dict[str, Any]:
    """Turn Python values into what the command line would have said: 10 -> refused there too, 0.5 -> "0.5"."""
    text = {"target", "max_drop", "min_quality", "budget"}
    return {k: str(v) if k in text and v is not None and not isinstance(v, str) else v for k, v in flags.items()}


def _label(model: nn.Module) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"


def _folder(
    request: Request, out: str | Path | None, model: nn.Module | str | Path
) -> tuple[Path, tempfile.TemporaryDirectory[str] | None]:
    """Return OUT: as said, else beside the model file, else a temporary folder for a module handed over in Python."""
    chosen = out or request.out
    if chosen is not None:
        return Path(chosen), None
    if isinstance(model, nn.Module):
        temporary = tempfile.TemporaryDirectory(prefix="easycompress-out-")
        return Path(temporary.name), temporary
    path = Path(model)
    return path.with_name(f"{path.stem}-easycompress"), None


def _fingerprint(request: Request, prepared: Prepared) -> dict[str, Any]:
    """Return what journalled values depend on."""
    keys = ("objective", "target", "max_drop", "min_quality", "format", "budget", "backend", "batch", "certify", "seed",
            "augment", "metric", "loss", "mean", "std")  # fmt: skip
    data = request.model_dump(mode="json", include=set(keys))
    sizes = [len(s) for s in (prepared.task.data.train, prepared.task.data.select, prepared.task.data.report)]
    return data | {"baseline": prepared.baseline.stat().st_size, "quality": prepared.quality, "samples": sizes}


def _journalled(journal: Journal, plan: Plan) -> Plan:
    """Return the plan that this run began with: a resumed run must not choose another."""
    data = journal.once(
        "plan",
        lambda: {"steps": [s.model_dump() for s in plan.steps], "decisions": [d.model_dump() for d in plan.decisions],
                 "notes": list(plan.notes)},
    )  # fmt: skip
    steps = tuple(parse_action(step) for step in data["steps"])
    return Plan(steps=steps, decisions=data["decisions"], notes=tuple(data["notes"]))


def _baseline_line(prepared: Prepared) -> str:
    quality = units.quality(prepared.quality, percent=prepared.task.metric.percent)
    amount = units.amount(prepared.value, prepared.goal.objective)
    return f"original: {quality} on select, {amount}; {prepared.task.data.note}"


def _module(folder: Path, original: nn.Module) -> nn.Module:
    """Rebuild the delivered module from its files, on a copy of the original."""
    return load(folder, lambda: copy.deepcopy(original))


def _repeat(folder: Path, request: Request, model: nn.Module | str | Path, base: Path) -> Result:
    """Return a finished run's result again."""
    data = read_json(folder / "report.json")
    data["schema_"] = data.pop("schema")
    report = Report.model_validate(data)
    if isinstance(model, nn.Module):
        module = model
    else:
        module = load_model(Path(model), request.factory, base, trust_pickle=request.trust_pickle).model
    return Result(_module(folder, module), report, folder, exit_code(report.verdict))
