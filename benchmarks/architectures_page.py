"""The matrix of techniques and architectures as a page of the documentation."""

from __future__ import annotations

from collections import Counter
from typing import Any

Table = dict[str, dict[str, dict[str, Any]]]

HEAD = """# Which technique works on which architecture

Small nets with random weights, one a row, go through every technique at a middle strength with two epochs of training.
A number is how many times smaller the file became: it ran in ONNX Runtime on batches of 1, 2, 5 and 64 samples, agreed
with the compressed module, and what `easycompress.load` rebuilt from the record was bit for bit the same. A letter is a
refusal, whose line stands below. `plan` is what `easycompress plan --target 2x` takes for size, latency and compute.
Made by `python -m benchmarks.architectures`, this page by its `--page docs/architectures.md`.
"""


def summary(table: Table) -> str:
    """Return how many cells work, are refused, are wrong, crash."""
    states = Counter(entry["state"] for row in table.values() for entry in row.values())
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


def page(table: Table) -> str:
    """Return the results as Markdown: a table of ratios, the reasons of the refusals, and the plans."""
    techniques = sorted({name for row in table.values() for name in row} - {"plan"})
    marks: dict[str, str] = {}
    lines = [HEAD, f"**{len(table)} architectures: {summary(table)}.**", ""]
    lines += ["| architecture | " + " | ".join(techniques) + " |", "|---|" + "---|" * len(techniques)]
    for kind, row in sorted(table.items()):
        cells = [_cell(row.get(name), marks) for name in techniques]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    lines += ["", "## Refusals", ""]
    lines += [f"- **{mark}**: {reason}" for reason, mark in marks.items()]
    lines += ["", "## Plans", "", "| architecture | size | latency | compute |", "|---|---|---|---|"]
    for kind, row in sorted(table.items()):
        plans = row.get("plan", {})
        lines.append(
            f"| {kind} | " + " | ".join(_escaped(plans.get(o, "")) for o in ("size", "latency", "compute")) + " |"
        )
    return "\n".join(lines) + "\n"


def _cell(entry: dict[str, Any] | None, marks: dict[str, str]) -> str:
    if entry is None:
        return ""
    if entry["state"] == "works":
        return f"{entry['ratio']:.1f}x"
    mark = marks.setdefault(entry["reason"], _letters(len(marks)))
    return mark if entry["state"] == "refused" else f"**{entry['state']}** {mark}"


def _letters(number: int) -> str:
    """Return a, b, ..., z, aa, ab, ..."""
    last = chr(ord("a") + number % 26)
    return last if number < 26 else _letters(number // 26 - 1) + last


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
