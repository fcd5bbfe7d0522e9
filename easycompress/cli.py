"""The command line: flags in, a Request and an exit code out. torch is imported only by the commands that need it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperGroup

from easycompress.core.errors import BadInput, EasyCompressError, one_line


class Stopped(Exception):
    """The user pressed Ctrl-C."""


class Commands(TyperGroup):
    """The commands. Ctrl-C leaves them as `Stopped`: typer would end in silence."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer's own types move between its versions
        """Run one command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Stopped from error
        except EasyCompressError as error:
            if _interrupted(error):  # torch's exporter turns an interrupt into an error of its own
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

Text = Optional[str]  # noqa: UP045 - typer reads annotations on Python 3.10
Flag = Optional[bool]  # noqa: UP045
Number = Optional[int]  # noqa: UP045


def _option(*names: str, help: str) -> Any:  # noqa: A002, ANN401 - typer's own word and type
    return typer.Option(*names, help=help, show_default=False)


Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="a state dict (.safetensors, .pt) with --factory, or a pickled module"),
]
Factory = Annotated[
    Text, _option("--factory", help="file.py:function, package.module:function or torchvision:resnet18")
]
Data = Annotated[
    Text, _option("--data", help="digits, file.npz, a folder of class folders or parquet, file.py:function")
]
Mean = Annotated[Text, _option("--mean", help="per-channel mean of images scaled to 0..1, e.g. 0.49,0.48,0.45")]
Std = Annotated[Text, _option("--std", help="per-channel standard deviation")]
Augment = Annotated[Text, _option("--augment", help="none (default), flip, flip-crop or file.py:function")]
MetricFlag = Annotated[Text, _option("--metric", help="accuracy (default), agreement, top5, mse or file.py:function")]
Loss = Annotated[Text, _option("--loss", help="cross-entropy, mse or file.py:function")]
Objective = Annotated[Text, _option("--objective", help="size (default), latency, compute or energy")]
TargetFlag = Annotated[Text, _option("--target", help="10x, 90%, 120KB, 3ms, 40MMACs or max")]
MaxDrop = Annotated[Text, _option("--max-drop", help="1% (percentage points), 1%rel (of the baseline) or 0.5")]
MinQuality = Annotated[Text, _option("--min-quality", help="the floor as a level, e.g. 98%")]
Format = Annotated[Text, _option("--format", help="onnx (default)")]
BudgetFlag = Annotated[Text, _option("--budget", help="20min (default), 90s, 2h, 30ep, or none for no training")]
Backend = Annotated[Text, _option("--backend", help="cpu (default) or gpu: where the result will run")]
Batch = Annotated[Number, _option("--batch", help="the batch size that latency is judged at (default 1)")]
Threads = Annotated[Number, _option("--threads", help="threads that latency is judged at (default: physical cores)")]
Certify = Annotated[
    Flag, typer.Option("--certify/--no-certify", help="hold the floor at 95 % confidence", show_default=False)
]
Seed = Annotated[Number, _option("--seed", help="fixes all randomness (default 0)")]
TrustPickle = Annotated[
    Flag, typer.Option("--trust-pickle", help="unpickle MODEL, which can run any code", show_default=False)
]
Force = Annotated[
    Flag, typer.Option("--force", help="go on where easycompress refuses and says so", show_default=False)
]
Recipe = Annotated[Text, _option("--recipe", help="replay the recipe.yaml of a finished run")]
Out = Annotated[Text, _option("-o", "--out", help="output folder (default: MODEL's name + -easycompress)")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with an interrupted run")]
Quiet = Annotated[bool, typer.Option("--quiet", help="print the verdict only")]
Json = Annotated[bool, typer.Option("--json", help="print the report as JSON and nothing else")]


@app.command()
def compress(
    model: Model, factory: Factory = None, data: Data = None, mean: Mean = None, std: Std = None,
    augment: Augment = None, metric: MetricFlag = None, loss: Loss = None, objective: Objective = None,
    target: TargetFlag = None, max_drop: MaxDrop = None, min_quality: MinQuality = None,
    format_: Format = None, budget: BudgetFlag = None, backend: Backend = None, batch: Batch = None,
    threads: Threads = None, certify: Certify = None, seed: Seed = None, trust_pickle: TrustPickle = None,
    force: Force = None, recipe: Recipe = None, out: Out = None, resume: Resume = False, quiet: Quiet = False,
    json_: Json = False,
) -> int:  # fmt: skip
    """Compress MODEL to a target within a floor; exit 0 met, 1 not met, 2 bad input, 3 can't, 4 undecided."""
    flags = _flags(locals())
    from easycompress.api import compress as run
    from easycompress.report.terminal import Terminal

    with _only_json(json_), Terminal(quiet=quiet or json_) as terminal:
        result = run(model, resume=resume, progress=terminal, **flags)
    if json_:
        sys.stdout.write(json.dumps(result.report.to_json(), indent=2) + "\n")
    else:
        terminal.closing(result.report)
        if not quiet:
            terminal.say(f"written to {result.out}")
    return result.exit_code


@app.command()
def plan(
    model: Model, factory: Factory = None, data: Data = None, mean: Mean = None, std: Std = None,
    augment: Augment = None, metric: MetricFlag = None, loss: Loss = None, objective: Objective = None,
    target: TargetFlag = None, max_drop: MaxDrop = None, min_quality: MinQuality = None,
    format_: Format = None, budget: BudgetFlag = None, backend: Backend = None, batch: Batch = None,
    threads: Threads = None, certify: Certify = None, seed: Seed = None, trust_pickle: TrustPickle = None,
    force: Force = None, recipe: Recipe = None, quiet: Quiet = False, json_: Json = False,
) -> int:  # fmt: skip
    """Show the heuristics, every rule asked, and the plan; train nothing, write nothing."""
    flags = _flags(locals())
    from easycompress.api import plan as make
    from easycompress.report.terminal import Terminal

    with _only_json(json_), Terminal(quiet=quiet or json_) as terminal:
        chosen, prepared = make(model, **flags)
    if json_:
        content = {
            "profile": prepared.profile.model_dump(mode="json"),
            "steps": [step.model_dump() for step in chosen.steps],
            "decisions": [decision.model_dump() for decision in chosen.decisions],
            "notes": list(chosen.notes),
        }
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
    else:
        terminal.plan_view(chosen, prepared.profile)
    return 0


@app.command()
def explain(
    rule: Annotated[
        Text, typer.Argument(metavar="[RULE]", help="S1.., P1.., D1.. or Q1..; without it all are listed")
    ] = None,
) -> int:
    """Explain a decision rule: its question, threshold, source, and where it stands in the code."""
    from easycompress.selection.explain import explain as tell

    sys.stdout.write(tell(rule) + "\n")
    return 0


@app.command()
def inspect(file: Annotated[str, typer.Argument(metavar="FILE", help="a model.onnx")], json_: Json = False) -> int:
    """Show what a file stores: per tensor its stored form, bits per weight and bytes."""
    from easycompress.artifact.inspection import inspect_onnx
    from easycompress.report.terminal import Terminal

    path = Path(file)
    rows = inspect_onnx(path)
    if json_:
        keys = ("name", "form", "shape", "bits_per_weight", "bytes")
        content = {"tensors": [{k: getattr(row, k) for k in keys} for row in rows], "file_bytes": path.stat().st_size}
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
    else:
        Terminal().inspect_view(rows, path.stat().st_size)
    return 0


@app.command()
def demo(directory: Annotated[Text, typer.Argument(metavar="[DIR]", help="default: ./demo")] = None) -> int:
    """Train a small CNN on data shipped with scikit-learn and compress it ten times; rerunnable."""
    from easycompress.demo import COMMAND, make_demo
    from easycompress.report.terminal import Terminal

    folder = Path(directory or "demo")
    with Terminal() as terminal:
        make_demo(folder, terminal)
        terminal.say(f"in {folder}: $ {COMMAND}")
    os.chdir(folder)
    return _run([*COMMAND.split()[1:], "--force"])


def _only_json(wanted: bool) -> contextlib.AbstractContextManager[Any]:  # noqa: FBT001 - the flag itself
    """Send what a user's own code prints to standard error while JSON alone belongs on standard output."""
    return contextlib.redirect_stdout(sys.stderr) if wanted else contextlib.nullcontext()


def _flags(values: dict[str, Any]) -> dict[str, Any]:
    """Return the flags given on the line, under the names of the Python keywords."""
    skipped = {"model", "resume", "quiet", "json_"}
    flags = {k.rstrip("_"): v for k, v in values.items() if k not in skipped and v is not None}
    for name in ("mean", "std"):
        if name in flags:
            flags[name] = _numbers(f"--{name}", flags[name])
    return flags


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise BadInput(f"{flag} {text}: not numbers; write one a channel, such as 0.49,0.48,0.45") from None


def _fail(text: str, code: int) -> int:
    sys.stderr.write(f"easycompress: {' '.join(text.splitlines())}\n")
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
    if isinstance(error, MemoryError):
        return f"out of memory ({one_line(error)}); use less data or a smaller --batch", 2
    if isinstance(error, Exception) and not isinstance(error, (OSError, Stopped, typer.Abort)):
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        return f"internal error: {type(error).__name__} at {where}: {one_line(error)}; {DEBUG}=1 shows all of it", BUG
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}; check the path, its permissions and the space on the disk", 2
    resumes = "; the same command with --resume goes on" if "compress" in arguments[:1] else ""
    return f"stopped{resumes}", STOPPED


def _run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; every refusal is one line."""
    try:
        return int(app(arguments or ["--help"], prog_name="easycompress", standalone_mode=False) or 0)
    except (Exception, KeyboardInterrupt) as error:  # a traceback's exit code is 1, which means "not met"
        if os.environ.get(DEBUG) and not isinstance(error, (EasyCompressError, UsageError)):
            raise
        return _fail(*_told(error, arguments))


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a path that the screen's encoding lacks must not end a run
    sys.exit(_run(sys.argv[1:]))
