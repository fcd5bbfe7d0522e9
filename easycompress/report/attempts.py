"""The table of attempts: one line each, columns that hold still, whatever the width."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from easycompress.report import units
from easycompress.report.columns import GAP
from easycompress.report.timing import clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easycompress.core.progress import AttemptBegun, AttemptDone

WIDTHS = {"#": 2, "attempt": 0, "ratio": 6, "quality": 7, "drop": 13, "verdict": 8, "epochs": 6, "time": 7}
"""Columns and their cells; the attempt gets what the others leave."""

GIVEN_UP = ("epochs", "time", "drop", "quality", "verdict", "#", "ratio")
"""The columns that a narrow screen does without, in this order."""

LEFT = ("attempt", "verdict")
"""The columns of words; numbers stand on the right."""

LEAST, ENOUGH = 15, 50
"""Cells that an attempt's words need; from ENOUGH on techniques have their full names."""

SHORT = {
    "structured-pruning": "pruning",
    "unstructured-pruning": "sparse",
    "transformer-pruning": "pruning",
    "depth-pruning": "depth",
    "distillation": "distill",
    "static-int8": "int8",
    "dynamic-int8": "int8",
    "qat-int8": "qat",
    "weight-only": "weights",
    "entropy-quantization": "entropy",
    "tuned-quantization": "tuned",
}
"""What techniques are called where there is little room; others keep their names."""

Row = dict[str, str]


@dataclass(frozen=True)
class Table:
    """Its head and its lines, each `width` cells, and for each line whether it was accepted (None: not judged)."""

    head: str
    lines: tuple[tuple[str, bool | None], ...]


def columns_for(width: int) -> dict[str, int]:
    """Return the columns that fit into `width` cells, with theirs; nothing where not even the attempt does."""
    widths = dict(WIDTHS)
    for name in (None, *GIVEN_UP):
        if name is not None:
            del widths[name]
        widths["attempt"] = width - sum(w for n, w in widths.items() if n != "attempt") - len(GAP) * (len(widths) - 1)
        if widths["attempt"] >= LEAST:
            return widths
    return {}


def table(
    done: Sequence[AttemptDone],
    running: tuple[AttemptBegun, int, float] | None,
    width: int,
    most: int | None = None,
    *,
    plain: bool = False,
) -> Table | None:
    """Return the attempts in at most `most` lines of `width` cells, those that are left out summed in the first one.

    `running` is the one that is under way, with its epochs and seconds so far. None where there is nothing to show, or
    no room. `plain`: in ASCII.
    """
    widths = columns_for(width)
    rows: list[tuple[Row, bool | None]] = [
        (_done(each, widths.get("attempt", 0), plain=plain), each.accepted) for each in done
    ]
    if running is not None:
        rows.append((_running(*running, widths.get("attempt", 0)), None))
    if not rows or not widths or (most is not None and most < 1):
        return None
    hidden = 0 if most is None or len(rows) <= most else len(rows) - max(most - 1, 1)
    lines = [(_line(row, widths, plain=plain), accepted) for row, accepted in rows[hidden:]]
    if hidden and most is not None and most > 1:
        lines.insert(0, (set_cell_size(_summed(done[:hidden]), width), None))
    head = _line({name: name for name in widths}, widths, plain=plain)
    return Table(head, tuple(lines))


def attempt_words(what: str, width: int) -> str:
    """Return what an attempt does in few words: its techniques, and the strengths that tell attempts apart."""
    parts = []
    for kind, settings in re.findall(r"([^\s,()][^,()]*?)\s*(?:\(([^()]*)\))?(?:,\s*|$)", what):
        strength = re.search(r"\bstrength ([\d.]+)", settings)
        name = kind if width >= ENOUGH else SHORT.get(kind, kind)
        parts.append(f"{name} {float(strength[1]):.3g}" if strength else name)
    return ", ".join(parts) or what


def counted(done: Sequence[AttemptDone]) -> str:
    """Return the attempts in one line: `attempts: 3, 1 kept, 2 rejected; 60 epochs in 2 min 03 s`; empty for none."""
    if not done:
        return ""
    kept = sum(each.accepted for each in done)
    verdicts = [f"{number} {word}" for number, word in ((kept, "kept"), (len(done) - kept, "rejected")) if number]
    epochs = sum(each.epochs for each in done)
    trained = f"{units.count(epochs)} epoch{'' if epochs == 1 else 's'} in " if epochs else ""
    return f"attempts: {', '.join([str(len(done)), *verdicts])}; {trained}{units.seconds(sum(a.seconds for a in done))}"


def value(number: float | None, room: int = 7) -> str:
    """Return a quality with four digits, in at most `room` cells."""
    text = units.number(number, 4)
    return text if len(text) <= room or number is None else f"{number:.1e}"


def _done(attempt: AttemptDone, room: int, *, plain: bool) -> Row:
    return {
        "#": str(attempt.number),
        "attempt": attempt_words(attempt.what, room),
        "ratio": units.ratio(attempt.ratio),
        "quality": value(attempt.quality),
        "drop": _drop(attempt, plain=plain),
        "verdict": "kept" if attempt.accepted else "rejected",
        "epochs": str(attempt.epochs),
        "time": clock(attempt.seconds),
    }


def _running(attempt: AttemptBegun, epochs: int, seconds: float, room: int) -> Row:
    words = attempt_words(attempt.what, room)
    trained = f"{epochs}/{attempt.epochs}" if attempt.epochs else ""
    trained = trained if len(trained) <= WIDTHS["epochs"] else str(epochs)
    return {"#": str(attempt.number), "attempt": words, "verdict": "running", "epochs": trained, "time": clock(seconds)}


def _drop(attempt: AttemptDone, *, plain: bool) -> str:
    """Return the drop and one standard error with two decimals, three for scores below 1, fewer without the room."""
    if attempt.drop is None:
        return units.UNKNOWN
    numbers = [number for number in (attempt.drop, attempt.error) if number is not None]
    text = ""
    for decimals in range(3 if abs(attempt.quality or 1.0) < 1 else 2, -1, -1):
        text = (" +- " if plain else " ± ").join(f"{number:.{decimals}f}" for number in numbers)
        if len(text) <= WIDTHS["drop"]:
            break
    return text


def _summed(hidden: Sequence[AttemptDone]) -> str:
    kept = [attempt.ratio for attempt in hidden if attempt.accepted]
    best = f", the best {units.ratio(max(kept))}" if kept else ""
    return f"{len(hidden)} earlier: {len(kept)} kept{best}"


def _line(row: Row, widths: dict[str, int], *, plain: bool) -> str:
    return GAP.join(_cell(row.get(name, ""), width, left=name in LEFT, plain=plain) for name, width in widths.items())


def _cell(text: str, width: int, *, left: bool, plain: bool) -> str:
    if cell_len(text) > width:
        dots = "..." if plain else "…"
        text = set_cell_size(text, width - len(dots)).rstrip(" ,") + dots
    return set_cell_size(text, width) if left else " " * (width - cell_len(text)) + text
