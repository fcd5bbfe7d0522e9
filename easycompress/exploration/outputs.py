"""The files of an exploration: curves.json, curves.csv, the pictures, the page."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from easycompress.core.files import write_json, write_text
from easycompress.exploration.draw import draw_all
from easycompress.exploration.draw_figures import draw_figures
from easycompress.exploration.page import render
from easycompress.exploration.pareto import MEASURES

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.exploration.story import Story

COLUMNS = (
    "part", "curve", "label", "key", "size_bytes", "packed_bytes", "macs", "params", *(f"ratio_{m}" for m in MEASURES),
    "quality", "drop", "drop_error", "training_loss", "epochs", "seconds", "fronts", "reason",
)  # fmt: skip


def write_outputs(story: Story, folder: Path) -> None:
    """Write everything that can be made from the points."""
    write_json(folder / "curves.json", story.to_json())
    write_text(folder / "curves.csv", table(story))
    draw_all(story, folder)
    draw_figures(story, folder)
    write_text(folder / "explore.html", render(story, folder))


def table(story: Story) -> str:
    """Return all points as CSV: the original first, then the curves from gentle to strong, figures, failures."""
    standings = {id(each.row): each for each in story.standings}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    first = story.original
    ones = [1.0, 1.0, 1.0, "" if not story.latencies else 1.0]
    writer.writerow(["original", "", "", "", first.size_bytes, "", first.macs, first.params, *ones, first.quality, 0,
                     0, first.loss, 0, 0, "", ""])  # fmt: skip
    order = {name: index for index, name in enumerate(dict.fromkeys(row.curve for row in story.rows))}
    for row in sorted(story.rows, key=lambda row: (row.part, order[row.curve], row.level)):
        standing = standings.get(id(row))
        ratios = [standing.ratios.get(measure, "") if standing else "" for measure in MEASURES]
        writer.writerow([
            row.part, row.curve, row.label, row.key, row.size_bytes, row.packed_bytes, row.macs, row.params, *ratios,
            row.quality, None if row.drop is None else row.drop.estimate, row.error, row.loss, row.epochs, row.seconds,
            " ".join(standing.fronts) if standing else "", row.reason,
        ])  # fmt: skip
    return text.getvalue()
