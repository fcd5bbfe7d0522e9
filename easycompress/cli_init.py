"""The command that writes the first files of a user's own case. It imports late, as help must be quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from easycompress.cli_flags import (
    BudgetFlag,
    Data,
    Factory,
    MaxDrop,
    Objective,
    TargetFlag,
    Text,
    option,
)
from easycompress.core.errors import BadInput


def init(
    model: Annotated[Text, typer.Argument(metavar="[MODEL]", help="default: the one model in this folder")] = None,
    task: Annotated[Text, option("--task", help="image-classification, text-classification, ... (asked for)")] = None,
    factory: Factory = None,
    data: Data = None,
    objective: Objective = None,
    target: TargetFlag = None,
    max_drop: MaxDrop = None,
    budget: BudgetFlag = None,
    yes: Annotated[bool, typer.Option("--yes", help="ask nothing: the flags and the defaults")] = False,  # noqa: FBT002 - flags are booleans
    force: Annotated[bool, typer.Option("--force", help="write files anew that are there")] = False,  # noqa: FBT002 - as above
) -> int:
    """Write easycompress.toml beside MODEL and, where code is needed, a commented task.py to fill in."""
    from easycompress.init import TASK, Case, ask_case, find_model, guess_kind, usual_drop, write_case  # noqa: PLC0415 - imports yaml

    found = Path(model) if model else find_model(Path())
    if found is None:
        raise BadInput("no model, or several, in this folder; name it: easycompress init MODEL")
    kind = task or guess_kind(found)
    case = Case(
        model=found,
        kind=kind,
        factory=factory,
        data=data,
        objective=objective or "size",
        target=target or "10x",
        max_drop=max_drop or usual_drop(kind),
        budget=budget or "20min",
    )
    if not yes and sys.stdin.isatty():
        case = ask_case(case, lambda question, default: str(typer.prompt(question, default=default, show_default=True)))
    folder = found.parent
    written = write_case(case, folder, force=force)
    for path in written:
        todo = ": fill in the lines marked with <-" if path.name == TASK else ""
        sys.stdout.write(f"written: {path}{todo}\n")
    sys.stdout.write(f"then: easycompress plan {found}\n")
    return 0
