"""The table of docs/ci.md: what `easycompress check` let pass, and what it caught."""

from __future__ import annotations

from statistics import median
from typing import Any

BEGIN, END = "<!-- begin: python -m benchmarks.regression --page docs/ci.md -->", "<!-- end -->"


def table(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| what changed | checks | failed | by |", "|---|---|---|---|"]
    for name, rows in results["rows"].items():
        failed = [row for row in rows if row["failed"]]
        by = ", ".join(dict.fromkeys(check for row in failed for check in row["failed"])) or "-"
        lines.append(f"| {_named(name, results)} | {len(rows)} | {len(failed)} | {by} |")
    middle = median(row["seconds"] for rows in results["rows"].values() for row in rows)
    threads = f"{results['threads']} thread{'' if results['threads'] == 1 else 's'}"
    return "\n".join([*lines, "", f"Batch 1, {threads}; the median check took {middle:.1f} s."])


def inserted(page: str, text: str) -> str:
    """Return a page with `text` between its marks."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{text}\n{END}{tail}"


def _named(name: str, results: dict[str, Any]) -> str:
    if name == "one point worse":
        return f"{results['worse by']:.2f} points worse"
    if name == "20 % slower":
        times = [float(row["latency"].partition("x")[0]) for row in results["rows"][name]]
        return f"slower: {median(times):.2f}x the time (median; {min(times):.2f}x to {max(times):.2f}x)"
    return "nothing but the file's bytes" if name == "unchanged" else name
