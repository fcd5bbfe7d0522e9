"""The command that predicts. It imports late, as help must be quick."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

from easycompress import cli_flags as flag  # noqa: TC001 - typer reads annotations at run time
from easycompress.cli_flags import Text, given_of, option

if TYPE_CHECKING:
    from easycompress.estimation.outcome import Estimates


def estimate(
    model: flag.Model, factory: flag.Factory = None, data: flag.Data = None, columns: flag.Columns = None,
    mean: flag.Mean = None, std: flag.Std = None, augment: flag.Augment = None,
    metric: flag.MetricFlag = None, loss: flag.Loss = None,
    objective: Annotated[Text, option("--objective", help="all (default without --target), size, latency, ...")] = None,
    target: Annotated[Text, option("--target", help="10x, 90%, 120KB, 3ms or max (default: a table)")] = None,
    max_drop: flag.MaxDrop = None, min_quality: flag.MinQuality = None, format_: flag.Format = None,
    budget: flag.BudgetFlag = None, backend: flag.Backend = None, batch: flag.Batch = None,
    threads: flag.Threads = None, certify: flag.Certify = None, seed: flag.Seed = None,
    split_seed: flag.SplitSeed = None, trust_pickle: flag.TrustPickle = None, force: flag.Force = None,
    quiet: flag.Quiet = False, json_: flag.Json = False,  # noqa: FBT002 - flags are booleans
) -> int:  # fmt: skip
    """Predict what a target would cost in quality, and what a floor can buy; trains for seconds, writes nothing."""
    given = given_of(locals())
    from easycompress.estimation.run import estimate as run  # noqa: PLC0415 - imports torch
    from easycompress.report.terminal import Terminal  # noqa: PLC0415 - imports rich

    with Terminal(quiet=quiet or json_) as terminal:
        found = run(model, progress=terminal, **given)
    if json_:
        sys.stdout.write(json.dumps(found.to_json(), indent=2) + "\n")
    else:
        _tell(found, quiet=quiet)
    return 0


def _tell(found: Estimates, *, quiet: bool) -> None:
    from easycompress.estimation import words  # noqa: PLC0415 - imports late, as all here
    from easycompress.report import units  # noqa: PLC0415 - as above
    from easycompress.report.columns import Column, table, wrapped  # noqa: PLC0415 - imports rich
    from easycompress.report.terminal import Screen  # noqa: PLC0415 - imports rich

    screen = Screen()
    width = screen.width if screen.is_terminal else None
    if found.summary:
        screen.print(wrapped(found.summary, width), soft_wrap=True, style="bold")
    else:
        unit = "points" if found.percent else found.metric
        right = (Column("Drop", right=True), Column("90 %", right=True), Column(f"Met {found.floor}", right=True))
        columns = (Column("Objective"), Column("Target", right=True), *right, Column("By", cut="end"))
        screen.print(
            f"What a target would cost ({unit}), and the chance to meet it within {found.floor}\n", soft_wrap=True
        )
        screen.print(table(columns, words.target_rows(found), width), soft_wrap=True)
        right = (Column("Floor", right=True), Column("Ratio", right=True), Column("90 %", right=True))
        screen.print("\nWhat a floor can buy (--target max)\n")
        screen.print(
            table((Column("Objective"), *right, Column("By", cut="end")), words.floor_rows(found), width),
            soft_wrap=True,
        )
    if not quiet:
        for note in (*found.notes, found.calibration):
            screen.print(wrapped(f"note: {note}", width), soft_wrap=True, style="dim")
        screen.print(f"took {units.seconds(found.seconds)}", style="dim")
