"""What explore was asked for, checked before anything is read."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from easycompress.core.errors import BadInput
from easycompress.core.goal import parse_budget
from easycompress.executor.storage import is_remote
from easycompress.exploration.plan import CURVES
from easycompress.exploration.points import POINTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easycompress.core.goal import Budget
    from easycompress.core.request import Request
    from easycompress.core.task import Metric

NAMES = ("journal", POINTS, "picked", "curves.json", "curves.csv", "explore.html", "latency.json")
"""What explore writes into OUT, beside pictures."""

UNSAID = "0"
"""The floor until the metric is known, where none was said: any metric can be held to it."""

PICTURE = re.compile(r"[a-z0-9-]+\.(png|svg)")


def names_of(curves: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the curves. Raises BadInput for one that doesn't exist."""
    known = [curve.name for curve in CURVES]
    if curves is None:
        return tuple(known)
    wanted = [name.strip() for name in (curves.split(",") if isinstance(curves, str) else curves)]
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise BadInput(f"--curves {name}: no such curve; " + (f"did you mean {near[0]}? " if near else "")
                           + f"there are {', '.join(known)}")  # fmt: skip
    return tuple(wanted)


def check_numbers(epochs: int | None, workers: int) -> None:
    """Raise BadInput for numbers that make no sense."""
    if epochs is not None and epochs < 1:
        raise BadInput(f"--epochs {epochs}: every point that learns needs at least 1; --budget none leaves those out")
    if workers < 1:
        raise BadInput(f"--workers {workers}: at least 1")


def budget_of(text: object) -> Budget | None:
    """Return the time for everything that was named for this run: a file's is one of compress."""
    if text is None:
        return None
    budget = parse_budget(str(text))
    if budget.kind == "epochs":
        raise BadInput(
            f"--budget {text}: explore takes a time, such as 30min; --epochs says how long a point is trained"
        )
    return budget


def without_goal(request: Request, folder: Path, splits: tuple[object, ...]) -> Request:
    """Return the request with what its goal lacks: no target is needed here, and a floor is only drawn.

    Raises BadInput where there is no data, neither named nor in `splits`.
    """
    if request.data is None and not any(split is not None for split in splits):
        raise BadInput("explore: no data given, so no quality can be measured: add --data (a file, a folder, a name)")
    changes: dict[str, Any] = {"budget": "none", "out": str(folder), "recipe": None}
    if request.target is None:
        changes["target"] = "max"
    if request.max_drop is None and request.min_quality is None:
        changes["max_drop"] = UNSAID
    return request.model_copy(update=changes)


def with_floor(request: Request, metric: Metric) -> Request:
    """Return the request with the usual floor where none was said: 1 point, or 1 % of what is no percentage."""
    if request.max_drop != UNSAID:
        return request
    return request.model_copy(update={"max_drop": "1%" if metric.percent else "1%rel"})


def folder_of(model: nn.Module | str | Path, out: str | Path | None) -> Path:
    """Return OUT: as said, else beside the model's file. A file of settings names that of compress.

    Raises BadInput where something else is in there.
    """
    if out is not None:
        if is_remote(out):
            raise BadInput(f"-o {out}: explore writes into folders; mount the store, or name a shared folder")
        folder = Path(out)
    elif isinstance(model, nn.Module):
        folder = Path("model-explore")
    else:
        folder = Path(model).with_name(f"{Path(model).stem}-explore")
    _check_folder(folder)
    return folder


def _check_folder(folder: Path) -> None:
    """Raise BadInput where something else is in OUT."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: is a file; choose another folder with -o")
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    foreign = [
        name for name in names if name not in NAMES and not PICTURE.fullmatch(name) and not name.endswith(".tmp")
    ]
    if foreign:
        raise BadInput(
            f"{folder}: holds other files ({', '.join(foreign[:3])}); explore writes only into a folder of its own: "
            "choose another with -o"
        )
