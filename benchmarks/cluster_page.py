"""The table of benchmarks.cluster."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import NOT_RUN, table

EXPECTED = ("explore, digits", "rivals, lenet5")

TEXT = (
    "Two Ray nodes on one machine, the second one killed in mid-run. Rows are points of `explore` or rows of "
    "`benchmarks.rivals`; *begun anew* are those that the killed node was at, where that is told."
)

HEADER = ("run", "rows", "arrived", "as without Ray", "begun anew", "seconds", "seconds alone")


def lines(held: dict[str, Any]) -> list[str]:
    """Return Markdown: one line a run, those not run included."""
    names = [*EXPECTED, *(name for name in held if name not in EXPECTED)]
    return [
        TEXT,
        "",
        table(HEADER, [_row(name, held.get(name)) for name in names]),
    ]


def _row(name: str, row: dict[str, Any] | None) -> tuple[str, ...]:
    if row is None:
        return (name, NOT_RUN, *[""] * (len(HEADER) - 2))
    killed = "" if row["killed"] else " (nothing was killed)"
    same, anew, alone = (str(row.get(key, "")) for key in ("same", "begun_anew", "seconds_alone"))
    return (name + killed, str(row["rows"]), str(row["measured"]), same, anew, str(row["seconds"]), alone)
