"""The command that holds a later model to a baseline. It imports late, as help must be quick."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from easycompress.cli_flags import Json, Number, Quiet, Text, TrustPickle, option
from easycompress.core.errors import EasyCompressError

if TYPE_CHECKING:
    from easycompress.regression.outcome import Outcome


def check(
    candidate: Annotated[
        str, typer.Argument(metavar="OUT|MODEL", help="a finished result's folder, a model.onnx or a model.ecz")
    ],
    baseline: Annotated[str, option("--baseline", help="the report.json that it is held to, its files beside it")],
    max_drop: Annotated[Text, option("--max-drop", help="0.5% (default, points), 0.5%rel, a number, or none")] = None,
    max_size: Annotated[Text, option("--max-size", help="1.02x (default) of the baseline's bytes, or none")] = None,
    max_macs: Annotated[Text, option("--max-macs", help="1.02x (default) of its multiply-accumulates, or none")] = None,
    max_latency_ratio: Annotated[
        Text, option("--max-latency-ratio", help="1.15 (default) of the reference's time in this run, or none")
    ] = None,
    data: Annotated[Text, option("--data", help="the baseline's data, where its own path doesn't lead to it")] = None,
    reference: Annotated[
        Text, option("--reference", help="what is timed beside it (default: the baseline's model.onnx)")
    ] = None,
    threads: Annotated[Number, option("--threads", help="threads that are timed (default: as the baseline)")] = None,
    trust_pickle: TrustPickle = None,
    junit: Annotated[Text, option("--junit", help="write the checks as a JUnit file")] = None,
    quiet: Quiet = False,  # noqa: FBT002 - flags are booleans
    json_: Json = False,  # noqa: FBT002 - as above
) -> int:
    """Compare a result, or a model measured now, with a baseline; exit 0 fine, 1 a regression, 2 bad input."""
    from easycompress.regression.annotations import error_line, on_github  # noqa: PLC0415 - imports late, as all here
    from easycompress.regression.junit import write_junit, write_junit_error  # noqa: PLC0415 - imports xml
    from easycompress.regression.run import check as compare  # noqa: PLC0415 - imports torch
    from easycompress.report.terminal import Terminal  # noqa: PLC0415 - imports rich

    marked = sys.stderr if json_ else sys.stdout
    try:
        with Terminal(quiet=quiet or json_) as terminal:
            outcome = compare(
                candidate, baseline=baseline, max_drop=max_drop, max_size=max_size, max_macs=max_macs,
                max_latency_ratio=max_latency_ratio, data=data, reference=reference, threads=threads,
                trust_pickle=bool(trust_pickle), progress=terminal,
            )  # fmt: skip
    except EasyCompressError as error:
        if junit is not None:
            write_junit_error(Path(junit), str(error))
        if on_github(os.environ):
            marked.write(error_line("bad input", str(error)) + "\n")
        raise
    if junit is not None:
        write_junit(Path(junit), outcome)
    _tell(outcome, quiet=quiet, json_=json_)
    return outcome.exit_code


def _tell(outcome: Outcome, *, quiet: bool, json_: bool) -> None:
    from easycompress.regression.annotations import error_lines, on_github  # noqa: PLC0415 - imports late, as all here
    from easycompress.report.columns import Column, table  # noqa: PLC0415 - imports rich
    from easycompress.report.terminal import Screen  # noqa: PLC0415 - imports rich

    screen = Screen()
    if json_:
        sys.stdout.write(json.dumps(outcome.to_json(), indent=2) + "\n")
    else:
        words = {True: "ok", False: "WORSE", None: "-"}
        rows = [(c.name, c.measured, c.allowed, words[c.passed]) for c in outcome.checks]
        columns = (Column("check"), Column("now", cut="end"), Column("allowed", cut="end"), Column(""))
        if not quiet:
            screen.print(table(columns, rows, screen.width if screen.is_terminal else None), soft_wrap=True)
            for note in outcome.notes:
                screen.print(f"note: {note}", soft_wrap=True)
            screen.print()
        screen.print(outcome.verdict, soft_wrap=True, style="bold green" if outcome.passed else "bold red")
    if on_github(os.environ):
        stream = sys.stderr if json_ else sys.stdout
        stream.writelines(f"{line}\n" for line in error_lines(outcome))
