"""The Python face: compress(), plan(), load()."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from torch import nn

from easycompress.assemble import make_the_task
from easycompress.calling import as_flags, handed, held, name_of, own_randomness, scratch_folder
from easycompress.carry import carry_out
from easycompress.core.errors import BadInput, EasyCompressError, one_line
from easycompress.core.files import read_json
from easycompress.core.ledger import booked
from easycompress.core.outcome import Report, exit_code
from easycompress.core.progress import Progress, Silent
from easycompress.executor.journal import Journal, check_out, check_same, open_journal, state_of, tidy
from easycompress.executor.replay import load
from easycompress.executor.storage import is_remote, stored
from easycompress.fingerprint import fingerprint, flags_of
from easycompress.follow import introduce
from easycompress.intake.config import make_request
from easycompress.intake.models import GRAPHS, load_model
from easycompress.intake.task import copied
from easycompress.planning import begin_plan, make_plan
from easycompress.prepare import Prepared, prepare
from easycompress.report import units
from easycompress.selection.recipe import seeds_of

if TYPE_CHECKING:
    from easycompress.core.plan import Plan
    from easycompress.core.request import Request

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
    url: str | None = None
    """Where OUT is, if that is a store; `out` is then this process's copy of it."""
    _temporary: tempfile.TemporaryDirectory[str] | None = None

    def save(self, path: str | Path) -> Path:
        """Copy the result's files into `path`, a new or empty folder or one that easycompress finished."""
        target = Path(path)
        if target.resolve() == self.out.resolve():
            return target
        check_out(target, resume=False, force=False)
        try:
            if target.exists():
                shutil.rmtree(target)
            shutil.copytree(self.out, target)
        except OSError as error:
            raise BadInput(f"{target}: can't be written ({one_line(error)}); choose another folder") from error
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
    DataLoader, a Dataset, a Hugging Face dataset, a tuple of tensors (inputs, targets), or a dict of the model's
    keywords with its labels. `data` is a Hugging Face DatasetDict or a dict of such splits, or names data as `--data`
    does. Texts, pictures and sounds in a Hugging Face dataset are read as those of files are, by the tokenizer or
    processor of the model's folder; `columns` names inputs and label. Further keywords are the flags of the command
    line: `objective`, `target`, `max_drop`, `budget`, `certify`, `seed`, ...

    Raises BadInput and CannotCompress (both EasyCompressError) with one line. A goal that was not met is no exception:
    see `report.verdict`.
    """
    began = time.monotonic()
    progress = progress or Silent()
    splits, flags = handed((train, validation, test), flags)
    request, base = make_request(name_of(model), as_flags(flags), use_file=not isinstance(model, nn.Module))
    request = _replayed(request, base)
    folder, temporary = _folder(request, out, model)
    chosen = out or request.out
    if chosen is not None or temporary is None:
        request = request.model_copy(update={"out": str(chosen or folder)})
    url = str(chosen) if is_remote(chosen) else None
    with contextlib.nullcontext() if url is None else stored(url, folder, resume=resume):
        result = _compressed(model, request, base, splits, folder, resume=resume, progress=progress, began=began)
    return replace(result, url=url, _temporary=temporary)


def _compressed(
    model: nn.Module | str | Path,
    request: Request,
    base: Path,
    splits: tuple[object, ...],
    folder: Path,
    *,
    resume: bool,
    progress: Progress,
    began: float,
) -> Result:
    """Return what compress() does with OUT in a folder of this machine."""
    if request.out is not None:
        check_out(folder, resume=resume, force=request.force)
    if resume and state_of(folder) == "finished":
        tidy(folder)
        return _repeat(folder, request, model, base)
    with booked(), scratch_folder() as scratch, held(folder) as lock, own_randomness(request.seed):
        task = make_the_task(model, request, base, splits)
        introduce(task)
        progress.now("measuring the original")
        prepared = prepare(task, request, scratch)
        progress.say(_baseline_line(prepared))
        first_plan, later = begin_plan(prepared, request, base, time.monotonic() - began)
        journal = open_journal(folder, fingerprint(prepared, request), resume=resume, began=began, lock=lock)
        try:
            report = carry_out(_settled(prepared, journal), request, first_plan, journal, progress, later)
        except EasyCompressError:
            journal.discard()
            raise
        return Result(_module(folder, task.model), report, folder, exit_code(report.verdict))


def plan(model: nn.Module | str | Path, **keywords: Any) -> tuple[Plan, Prepared]:  # noqa: ANN401 - as compress()
    """Return the plan that compress() would carry out, and what it rests on. Trains nothing and writes nothing."""
    began = time.monotonic()
    given = tuple(keywords.pop(name, None) for name in ("train", "validation", "test"))
    splits, keywords = handed(given, keywords)
    request, base = make_request(name_of(model), as_flags(keywords), use_file=not isinstance(model, nn.Module))
    with scratch_folder() as scratch, own_randomness(request.seed):
        task = make_the_task(model, request, base, splits)
        prepared = prepare(task, request, scratch)
        return make_plan(prepared, request, base, time.monotonic() - began), prepared


def _replayed(request: Request, base: Path) -> Request:
    """Return the request with the seeds of the recipe that it replays, unless it names its own."""
    if request.recipe is None or request.model_fields_set & {"seed", "split_seed"}:
        return request
    return request.model_copy(update=seeds_of(base / request.recipe))


def _folder(
    request: Request, out: str | Path | None, model: nn.Module | str | Path
) -> tuple[Path, tempfile.TemporaryDirectory[str] | None]:
    """Return OUT: as said, else beside the model file; a temporary folder for a store and for a module from Python."""
    chosen = out or request.out
    if chosen is not None and not is_remote(chosen):
        return Path(chosen), None
    if chosen is not None:
        temporary = tempfile.TemporaryDirectory(prefix="easycompress-out-")
        return Path(temporary.name).resolve() / "out", temporary
    if isinstance(model, nn.Module):
        temporary = tempfile.TemporaryDirectory(prefix="easycompress-out-")
        return Path(temporary.name), temporary
    path = Path(model)
    return path.with_name(f"{path.stem}-easycompress"), None


def _settled(prepared: Prepared, journal: Journal) -> Prepared:
    """Return `prepared` with the original's objective as this run first measured it: no latency is twice the same."""
    value = float(journal.once("original", lambda: prepared.value))
    return replace(prepared, value=value, needed=prepared.goal.target.ratio(value))


def _baseline_line(prepared: Prepared) -> str:
    quality = units.quality(prepared.quality, percent=prepared.task.metric.percent)
    amount = units.amount(prepared.value, prepared.goal.objective)
    return "; ".join([f"original: {quality} on select, {amount}", prepared.task.data.note, *prepared.task.notes])


def _module(folder: Path, original: nn.Module) -> nn.Module:
    """Rebuild the delivered module from its files, on a copy of the original."""
    return load(folder, lambda: copied(original))


def _repeat(folder: Path, request: Request, model: nn.Module | str | Path, base: Path) -> Result:
    """Return a finished run's result again."""
    check_same(folder, flags_of(request))
    data = read_json(folder / "report.json")
    try:
        report = Report.model_validate({"schema_": data.pop("schema"), **data})
    except (ValidationError, KeyError, AttributeError) as error:
        raise BadInput(f"{folder}/report.json: not a report of this version; start anew without --resume") from error
    with own_randomness(request.seed):
        if isinstance(model, nn.Module):
            module = model
        elif Path(model).suffix in GRAPHS:
            return Result(load(folder, model), report, folder, exit_code(report.verdict))
        else:
            module = load_model(Path(model), request.factory, base, trust_pickle=request.trust_pickle).model
        return Result(_module(folder, module), report, folder, exit_code(report.verdict))
