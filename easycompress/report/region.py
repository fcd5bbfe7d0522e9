"""The last lines of a terminal, drawn again and again in place; what is printed meanwhile goes above them and stays."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, TextIO, cast

from rich.cells import cell_len
from rich.console import RenderHook
from rich.control import Control
from rich.file_proxy import FileProxy
from rich.segment import ControlType, Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console, ConsoleOptions, ConsoleRenderable
    from rich.text import Text

REFRESH = 4
"""Redraws a second, at most: more would take time from the training that it tells of."""

END_OF_LINE, BELOW = "\x1b[K", "\x1b[J"
"""Erase from the cursor to the end of the line, and all that is below it."""


class _Raw:
    """Control characters, which Rich leaves as they are."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        yield Segment(self.text, None, [(ControlType.CURSOR_UP, 0)])


class _Frame:
    """The lines, each overwriting what was there, so that nothing flickers; the cursor stays at the end of the last."""

    def __init__(self, lines: list[Text]) -> None:
        self.lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for index, line in enumerate(self.lines):
            if index:
                yield Segment.line()
            yield from (segment for segment in line.render(console))
            yield from _Raw(END_OF_LINE).__rich_console__(console, options)
        yield from _Raw(BELOW).__rich_console__(console, options)


class Region(RenderHook):
    """Draws what `lines(width, height)` returns until it is stopped; then nothing of it is left.

    Standard output and error go through the console meanwhile, so that what libraries print stays above too. A frame
    that is the same as the last one is not drawn.
    """

    def __init__(self, console: Console, lines: Callable[[int, int], list[Text]]) -> None:
        self.console, self._lines = console, lines
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._drawn: list[Text] = []
        self._width = 0
        self._fresh = False
        self._streams: tuple[TextIO, TextIO] | None = None

    def start(self) -> None:
        """Draw the first frame, and go on drawing."""
        self._streams = sys.stdout, sys.stderr
        if not isinstance(sys.stdout, FileProxy) and self.console.file is sys.stdout:
            self.console.file = sys.stdout  # what silences a library meanwhile must not swallow a frame
            sys.stdout = cast("TextIO", FileProxy(self.console, sys.stdout))
            if sys.stderr.isatty():  # one that goes elsewhere belongs there
                sys.stderr = cast("TextIO", FileProxy(self.console, sys.stderr))
        self.console.show_cursor(show=False)
        self.console.push_render_hook(self)
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        """Take the lines away and bring the cursor back."""
        self._stop.set()
        if self._thread is not threading.current_thread() and self._thread.is_alive():
            self._thread.join()
        with self._lock:
            self.console.pop_render_hook()
            self.console.print(_Raw(self._back() + BELOW), end="")
            self.console.show_cursor(show=True)
            if self._streams is not None:
                sys.stdout, sys.stderr = self._streams

    def refresh(self) -> None:
        """Draw the lines where they have changed."""
        with self._lock:
            lines = self._lines(*self.console.size)
            if lines == self._drawn and self.console.width == self._width:
                return
            self._fresh = True
            self.console.print(Control())

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Put what is printed above the lines, and draw these again below it."""
        with self._lock:
            back, self._drawn, self._width = self._back(), self._lines(*self.console.size), self.console.width
            erase = "" if self._fresh else BELOW
            self._fresh = False
            return [_Raw(back + erase), *renderables, _Frame(self._drawn)]

    def _back(self) -> str:
        """Return what takes the cursor from the end of the last line to the start of the first.

        Lines that a narrower screen has broken since they were drawn count as often as it did.
        """
        width = max(self.console.width, 1)
        rows = sum(max(1, -(-cell_len(line.plain) // width)) for line in self._drawn)
        up = min(max(rows - 1, 0), self.console.height - 1)
        return f"\r\x1b[{up}A" if up else "\r"

    def _run(self) -> None:
        while not self._stop.wait(1 / REFRESH):
            self.refresh()
