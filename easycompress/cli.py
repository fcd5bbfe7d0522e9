"""The command line: flags in, a Request and an exit code out. torch is imported only by the commands that need it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from easycompress import cli_flags as flag
from easycompress.cli_check import check
from easycompress.cli_estimate import estimate
from easycompress.cli_explore import explore
from easycompress.cli_files import inspect, unpack
from easycompress.cli_init import init
from easycompress.cli_serve import serve
from easycompress.core import stopping
from easycompress.core.errors import Crashed, EasyCompressError, one_line, printable
from easycompress.core.memory import is_exhausted

if TYPE_CHECKING:
    from easycompress.prepare import Prepared
    from easycompress.report.brief import Brief


class Stopped(Exception):
    """The user pressed Ctrl-C."""


class Commands(TyperGroup):
    """The commands. Ctrl-C leaves them as `Stopped`: typer would end in silence."""

    def make_context(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - typer's own types, see below
        """Read the command line."""
        try:
            return super().make_context(*arguments, **named)
        except KeyboardInterrupt as error:
            raise Stopped from error

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer's own types move between its versions
        """Run one command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Stopped from error
        except Exception as error:
            if stopping.asked() or _interrupted(error):  # libraries turn an interrupt into an error of their own
                raise Stopped from error
            raise


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Compress a PyTorch model to a stated goal, and prove that it did.",
)

UsageError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
"""The base of typer's usage errors; where it lives differs between typer's versions."""

STOPPED = 130

BUG = 70
"""Exit code of an error that easycompress should have foreseen (EX_SOFTWARE); 1 would say that a goal was missed."""

DEBUG = "EASYCOMPRESS_DEBUG"
"""Environment variable that shows the traceback of such an error."""


@app.command()
def compress(
    model: flag.Model, factory: flag.Factory = None, data: flag.Data = None, columns: flag.Columns = None,
    shape: flag.Shape = None, mean: flag.Mean = None, std: flag.Std = None, augment: flag.Augment = None,
    metric: flag.MetricFlag = None, loss: flag.Loss = None,
    objective: flag.Objective = None, target: flag.TargetFlag = None, max_drop: flag.MaxDrop = None,
    min_quality: flag.MinQuality = None, format_: flag.Format = None, budget: flag.BudgetFlag = None,
    backend: flag.Backend = None, batch: flag.Batch = None, threads: flag.Threads = None,
    certify: flag.Certify = None, seed: flag.Seed = None, split_seed: flag.SplitSeed = None,
    repeats: flag.Repeats = None, search: flag.Search = None, trust_pickle: flag.TrustPickle = None,
    force: flag.Force = None, recipe: flag.Recipe = None, also: flag.Also = None, out: flag.Out = None,
    resume: flag.Resume = False, quiet: flag.Quiet = False, json_: flag.Json = False,
) -> int:  # fmt: skip
    """Compress MODEL to a target within a floor; exit 0 met, 1 not met, 2 bad input, 3 can't, 4 undecided."""
    flags = flag.given_of(locals())
    from easycompress.api import compress as run
    from easycompress.follow import follow_the_leader
    from easycompress.report.terminal import Terminal
    from easycompress.training.team import joined

    with joined() as team:
        if team is not None and not team.leads:
            follow_the_leader(team, model, **flags)
            return 0
        with _only_json(json_), Terminal(quiet=quiet or json_) as terminal:
            result = run(model, resume=resume, progress=terminal, **flags)
    if json_:
        sys.stdout.write(json.dumps(result.report.to_json(), indent=2) + "\n")
    else:
        terminal.closing(result.report)
        if not quiet:
            where = result.url or result.out
            terminal.say(f"written to {where}; {where}/report.html tells all of it")
    return result.exit_code


@app.command()
def plan(
    model: flag.Model, factory: flag.Factory = None, data: flag.Data = None, columns: flag.Columns = None,
    shape: flag.Shape = None, mean: flag.Mean = None, std: flag.Std = None, augment: flag.Augment = None,
    metric: flag.MetricFlag = None, loss: flag.Loss = None,
    objective: flag.Objective = None, target: flag.TargetFlag = None, max_drop: flag.MaxDrop = None,
    min_quality: flag.MinQuality = None, format_: flag.Format = None, budget: flag.BudgetFlag = None,
    backend: flag.Backend = None, batch: flag.Batch = None, threads: flag.Threads = None,
    certify: flag.Certify = None, seed: flag.Seed = None, split_seed: flag.SplitSeed = None,
    trust_pickle: flag.TrustPickle = None,
    force: flag.Force = None, recipe: flag.Recipe = None, quiet: flag.Quiet = False, json_: flag.Json = False,
) -> int:  # fmt: skip
    """Show the heuristics, every rule asked, and the plan; train nothing, write nothing."""
    flags = flag.given_of(locals())
    from easycompress.api import plan as make
    from easycompress.report.terminal import Terminal

    with _only_json(json_), Terminal(quiet=quiet or json_) as terminal:
        chosen, prepared = make(model, **flags)
        brief = _brief(model, flags, prepared, chosen.epochs)
    if json_:
        content = brief.to_json() | {
            "profile": prepared.profile.model_dump(mode="json"),
            "quick": [step.model_dump() for step in chosen.quick],
            "steps": [step.model_dump() for step in chosen.steps],
            "lesser": [step.model_dump() for step in chosen.lesser],
            "last": [step.model_dump() for step in chosen.last],
            "decisions": [decision.model_dump() for decision in chosen.decisions],
            "notes": [*brief.notes, *chosen.notes],
        }
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
    else:
        terminal.plan_view(chosen, prepared.profile, brief)
    return 0


@app.command()
def explain(
    rule: Annotated[
        flag.Text, typer.Argument(metavar="[RULE]", help="S1.., P1.., D1.. or Q1..; without it all are listed")
    ] = None,
) -> int:
    """Explain a decision rule: its question, threshold, source, and where it stands in the code."""
    from easycompress.selection.explain import explain as tell

    sys.stdout.write(tell(rule) + "\n")
    return 0


app.command()(explore)
app.command()(estimate)
app.command()(check)
app.command()(inspect)
app.command()(unpack)
app.command()(init)
app.command()(serve)


@app.command()
def demo(directory: Annotated[flag.Text, typer.Argument(metavar="[DIR]", help="default: ./demo")] = None) -> int:
    """Train a small CNN on data shipped with scikit-learn and compress it ten times; rerunnable."""
    from easycompress.demo import COMMAND, REPORT, make_demo
    from easycompress.report.terminal import Terminal

    folder, here = Path(directory or "demo"), Path.cwd()
    with Terminal() as terminal:
        make_demo(folder, terminal)
        terminal.say(f"in {folder}: $ {COMMAND}")
    os.chdir(folder)
    code = _run([*COMMAND.split()[1:], "--force"])
    os.chdir(here)
    if (folder / REPORT).is_file():
        sys.stdout.write(f"open {folder / REPORT} in a browser\n")
    return code


def _only_json(wanted: bool) -> contextlib.AbstractContextManager[Any]:  # noqa: FBT001 - the flag itself
    """Send what a user's own code prints to standard error while JSON alone belongs on standard output."""
    return contextlib.redirect_stdout(sys.stderr) if wanted else contextlib.nullcontext()


def _brief(model: str, flags: dict[str, Any], prepared: Prepared, epochs: float) -> Brief:
    """Return what a plan rests on, from what was asked and what was measured."""
    from easycompress.intake.config import make_request
    from easycompress.report.brief import Brief

    request, _ = make_request(model, flags)
    data = prepared.task.data
    samples = {name: len(getattr(data, name)) for name in ("train", "calibration", "select", "report")}
    return Brief(
        request=request,
        goal=prepared.goal,
        metric=prepared.task.metric,
        budget=prepared.budget,
        quality=prepared.quality,
        value=prepared.value,
        allowed=prepared.allowed,
        needed=prepared.needed,
        epochs=epochs,
        threads=prepared.threads,
        samples=samples,
        notes=(data.note, *prepared.task.notes),
    )


def _fail(text: str, code: int) -> int:
    sys.stderr.write(f"easycompress: {printable(' '.join(text.splitlines()))}\n")
    return code


def _usage(error: Exception) -> str:
    """Return a usage error as one line, with the command whose help would have told."""
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "easycompress") if context is not None else "easycompress"
    text = getattr(error, "format_message", error.__str__)().strip().rstrip(".")
    return f"{text}{'' if text.endswith('?') else ';'} see {command} --help"


def _interrupted(error: BaseException) -> bool:
    """Say whether Ctrl-C is at the root of an error."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, KeyboardInterrupt):
        seen = seen.__cause__ or seen.__context__
    return seen is not None


def _told(error: BaseException, arguments: list[str]) -> tuple[str, int]:
    """Return the line and the exit code of everything that may end a command early."""
    if isinstance(error, EasyCompressError):
        return str(error), error.exit_code
    if isinstance(error, UsageError):
        return _usage(error), 2
    again = {"compress": "the same command with --resume goes on", "explore": "the same command goes on"}
    resumes = f"; {again[arguments[0]]}" if arguments and arguments[0] in again else ""
    if is_exhausted(error):
        return f"out of memory ({one_line(error)}); close other programs, or use less data{resumes}", 2
    if isinstance(error, Exception) and not isinstance(error, (OSError, Stopped, typer.Abort)):
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        return f"internal error: {type(error).__name__} at {where}: {one_line(error)}; {DEBUG}=1 shows all of it", BUG
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}; check the path, its permissions and the space on the disk", 2
    return f"stopped{resumes}", STOPPED


def _run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; every refusal is one line."""
    if "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1" and arguments[:1] != ["compress"]:
        return _fail("a launcher of several processes is for compress alone; start this command without it", 2)
    try:
        return int(app(arguments or ["--help"], prog_name="easycompress", standalone_mode=False) or 0)
    except (Exception, KeyboardInterrupt) as error:  # a traceback's exit code is 1, which means "not met"
        stopping.ignore()
        if os.environ.get(DEBUG) and not isinstance(error, (EasyCompressError, UsageError)):
            raise
        code = _fail(*_told(error, arguments))
        shown = isinstance(error, Crashed) or os.environ.get(DEBUG)
        if shown and error.__cause__ is not None:  # below the line: what to mend is the user's own
            sys.stderr.write("".join(traceback.format_exception(error.__cause__)))
        return code


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a path that the screen's encoding lacks must not end a run
    stopping.listen()
    try:
        code = _run(sys.argv[1:])
        stopping.ignore()
    except KeyboardInterrupt as error:  # before the first or after the last line of what is told there
        stopping.ignore()
        code = _fail(*_told(error, sys.argv[1:]))
    if code == STOPPED:  # at its usual end the interpreter would kill itself over an interrupt that went through exec()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(STOPPED)
    sys.exit(code)
