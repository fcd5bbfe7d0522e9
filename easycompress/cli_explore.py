"""The command that draws trade-off curves. It imports late, as help must be quick."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from easycompress import cli_flags as flag  # noqa: TC001 - typer reads annotations at run time
from easycompress.cli_flags import Number, Text, given_of, option

if TYPE_CHECKING:
    from easycompress.exploration.run import Exploration


Figures = Annotated[
    bool, typer.Option("--figures", help="also how pruning techniques degrade and recover, and what teaching adds")
]
Latency = Annotated[bool, typer.Option("--latency", help="time every file beside the original's, at the end")]


def explore(
    model: flag.Model, factory: flag.Factory = None, data: flag.Data = None, columns: flag.Columns = None,
    mean: flag.Mean = None, std: flag.Std = None, augment: flag.Augment = None,
    metric: flag.MetricFlag = None, loss: flag.Loss = None,
    epochs: Annotated[Number, option("--epochs", help="epochs of every point (default 8; small data: more)")] = None,
    curves: Annotated[Text, option("--curves", help="names, as quantize,prune,entropy (default: all that fit)")] = None,
    figures: Figures = False, latency: Latency = False,  # noqa: FBT002 - flags are booleans
    workers: Annotated[Number, option("--workers", help="processes side by side (default 1)")] = None,
    ray: Annotated[Text, option("--ray", help="address of a Ray cluster, or local")] = None,
    pick: Annotated[Text, option("--pick", help="make a result of a point: its key, best, or a ratio as 10x")] = None,
    objective: flag.Objective = None, max_drop: flag.MaxDrop = None, min_quality: flag.MinQuality = None,
    format_: flag.Format = None,
    budget: Annotated[Text, option("--budget", help="time for all points, as 1h; none: no training")] = None,
    batch: flag.Batch = None, threads: flag.Threads = None, certify: flag.Certify = None, seed: flag.Seed = None,
    split_seed: flag.SplitSeed = None, trust_pickle: flag.TrustPickle = None, force: flag.Force = None,
    out: Annotated[Text, option("-o", "--out", help="output folder (default: MODEL's name + -explore)")] = None,
    quiet: flag.Quiet = False, json_: flag.Json = False,  # noqa: FBT002 - as above
) -> int:  # fmt: skip
    """Draw what compression costs: quality against size over techniques, all trained alike; resumes by itself."""
    given = given_of(locals())
    from easycompress.exploration.run import explore as run  # noqa: PLC0415 - imports torch
    from easycompress.report.terminal import Terminal  # noqa: PLC0415 - imports rich

    with Terminal(quiet=quiet or json_) as terminal:
        found = run(model, progress=terminal, **given)
    if json_:
        sys.stdout.write((found.out / "curves.json").read_text(encoding="utf-8"))
    else:
        if found.picked is not None:
            terminal.closing(found.picked.report)
        _tell(found, quiet=quiet)
    return found.exit_code


def _tell(found: Exploration, *, quiet: bool) -> None:
    from easycompress.report.terminal import Screen  # noqa: PLC0415 - imports rich

    screen = Screen()
    if found.picked is not None:
        screen.print(f"written to {found.picked.out}", soft_wrap=True)
    if not quiet:
        screen.print(f"pictures and curves.csv in {found.out}; open {found.out}/explore.html", soft_wrap=True)
