"""The part of a terminal that is drawn anew while a run goes on: attempts so far, how training goes, time left."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from easycompress.core.errors import printable
from easycompress.core.progress import AttemptBegun, AttemptDone, EpochDone, TimeLeft
from easycompress.report import units
from easycompress.report.attempts import table, value
from easycompress.report.sparkline import sparkline
from easycompress.report.timing import blended, clock, left_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from easycompress.core.progress import Event

WIDEST_SPARK, NARROWEST_SPARK = 32, 6
"""Characters of a sparkline."""

NUMBER = 8
"""Cells of the number after one."""

BELOW = 4
"""Lines that stay free of the screen's height: what was said last is to be seen above."""

VERDICTS = {True: "green", False: "yellow", None: ""}


@dataclass
class Series:
    """What the epochs of one part of training showed."""

    label: str = ""
    quality: list[float | None] = field(default_factory=list)
    loss: list[float | None] = field(default_factory=list)
    distance: list[float | None] = field(default_factory=list)
    mu: float | None = None

    def add(self, epoch: EpochDone) -> None:
        """Take in an epoch."""
        self.quality.append(epoch.quality)
        self.loss.append(epoch.loss)
        self.distance.append(epoch.distance)
        self.mu = epoch.mu


class Picture:
    """What is known of a run, and how it looks on a screen of any size.

    `time` is what the clock says, in seconds; `plain` means ASCII only.
    """

    def __init__(self, *, plain: bool = False, time: Callable[[], float] = time.monotonic) -> None:
        self.plain, self._time, self._began = plain, time, time()
        self.done: list[AttemptDone] = []
        self._phase = ""
        self._series = Series()
        self._running: tuple[AttemptBegun, float] | None = None
        self._epochs: dict[str, int] = {}
        self._end: float | None = None
        self._latest: float | None = None

    def now(self, text: str) -> None:
        """Take note of what is being tried. Each phase (what stands before the first colon) has curves of its own."""
        self._phase = text
        if text.partition(":")[0] != self._series.label:
            self._series = Series()

    def event(self, event: Event) -> None:
        """Take note of what happened."""
        now = self._time()
        if isinstance(event, EpochDone):
            self._epoch(event)
        elif isinstance(event, AttemptBegun):
            self._running, self._epochs = (event, now), {}
        elif isinstance(event, AttemptDone):
            self._running, self._series, self._phase = None, Series(), "deciding what comes next"
            self.done.append(event)
        elif isinstance(event, TimeLeft):
            self._end = blended(self._end, None if event.seconds is None else now + event.seconds, now)
            self._latest = None if event.at_most is None else now + event.at_most

    def lines(self, width: int, height: int) -> list[Text]:
        """Return at most `height` - BELOW lines (at least one), each narrower than `width` cells: none can wrap."""
        room, now = max(width - 1, 1), self._time()
        low = [self._cut(self._phase or "...", room, style="bold" if self._running else "")]
        low += [self._cut(text, room, style="") for text in self._curves(room)]
        low.append(self._cut(self._times(now), room, style="dim"))
        most = max(1, height - BELOW)
        if most < len(low):
            return [low[0], low[-1]][:most]
        return [*self._table(room, most - len(low) - 2, now), *low]

    def _epoch(self, epoch: EpochDone) -> None:
        if epoch.label != self._series.label:
            self._series = Series(epoch.label)
        self._series.add(epoch)
        self._epochs[epoch.label] = epoch.epoch
        unit = "epoch" if epoch.mu is None else "step"
        self._phase = f"{epoch.label}: {unit} {epoch.epoch}/{epoch.epochs}, {units.seconds(epoch.seconds)}"

    def _table(self, room: int, most: int, now: float) -> list[Text]:
        running = None
        if self._running is not None:
            begun, since = self._running
            running = begun, sum(self._epochs.values()), now - since
        made = table(self.done, running, room, most, plain=self.plain) if most > 0 else None
        if made is None:
            return []
        lines = [Text(printable(line), style=VERDICTS[accepted]) for line, accepted in made.lines]
        return [Text(made.head, style="dim"), *lines, Text("")]

    def _curves(self, room: int) -> list[str]:
        """Return the score and the loss, and for learning-compression the distance, as lines of a fixed length."""
        series = self._series
        shown = [("on select", series.quality), ("loss", series.loss)]
        shown = [(name, values) for name, values in shown if any(v is not None for v in values)]
        lines = [self._side_by_side(shown, room)] if shown else []
        if any(v is not None for v in series.distance):
            mu = f", mu {units.number(series.mu)}"
            lines.append(self._side_by_side([("distance", series.distance)], room - len(mu)).rstrip() + mu)
        return lines

    def _side_by_side(self, shown: list[tuple[str, list[float | None]]], room: int) -> str:
        names = sum(cell_len(name) for name, _ in shown)
        free = room - names - len(shown) * (NUMBER + 2) - 3 * (len(shown) - 1)
        width = min(WIDEST_SPARK, free // len(shown))
        if width < NARROWEST_SPARK and len(shown) > 1:
            return self._side_by_side(shown[:1], room)
        parts = []
        for name, values in shown:
            latest = next((v for v in reversed(values) if v is not None), None)
            spark = sparkline([v for v in values if v is not None], width, plain=self.plain)
            parts.append(f"{name} {set_cell_size(spark, max(width, 0))} {value(latest, NUMBER):<{NUMBER}}")
        return "   ".join(parts)

    def _times(self, now: float) -> str:
        left = left_words(*(None if end is None else end - now for end in (self._end, self._latest)))
        return f"{clock(now - self._began)} elapsed" + (f", {left}" if left else "")

    def _cut(self, text: str, room: int, *, style: str) -> Text:
        if cell_len(text) > room:
            dots = "..." if self.plain else "…"
            text = set_cell_size(text, max(room - len(dots), 0)) + dots[:room]
        return Text(printable(text), style=style)
