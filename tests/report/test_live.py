"""The live lines: what they show at every size, and that they leave nothing behind."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from easycompress.core.progress import AttemptBegun, AttemptDone, EpochDone, TimeLeft, Watcher
from easycompress.report.live import BELOW, Picture
from easycompress.report.region import Region
from easycompress.report.terminal import Screen, Terminal

if TYPE_CHECKING:
    from easycompress.core.outcome import Report

WHAT = "structured-pruning (strength 0.5), distillation"


class Clock:
    """A time that stands still unless it is moved."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def done(number: int) -> AttemptDone:
    return AttemptDone(
        number=number, what=WHAT, objective=1.0, ratio=2.0, quality=97.5, drop=0.5, error=0.25, accepted=True,
        reason="", epochs=4, seconds=9.0,
    )  # fmt: skip


def epoch(number: int, label: str = "distillation", **seen: Any) -> EpochDone:
    return EpochDone(label=label, epoch=number, epochs=30, seconds=1.5, **seen)


def watched(*, plain: bool = False) -> tuple[Picture, Clock]:
    """What a run looks like in its third attempt's 20th epoch."""
    clock = Clock()
    picture = Picture(plain=plain, time=clock)
    picture.event(done(1))
    picture.event(done(2))
    picture.now("attempt 3: " + WHAT)
    picture.event(AttemptBegun(number=3, what=WHAT, epochs=40))
    for number in range(1, 21):
        clock.seconds += 1.5
        picture.event(epoch(number, loss=2.0 / number, quality=90 + number / 4))
    picture.event(TimeLeft(seconds=170.0, at_most=700.0))
    return picture, clock


def shown(picture: Picture, width: int = 80, height: int = 24) -> list[str]:
    return [line.plain for line in picture.lines(width, height)]


def test_it_shows_attempts_curves_phase_and_time() -> None:
    picture, clock = watched()
    lines = shown(picture)
    assert lines[1].startswith(" 1  pruning 0.5, d")
    assert "running    20/40     0:30" in lines[3]
    assert lines[5] == "distillation: epoch 20/30, 1.5 s"
    assert lines[6].startswith("on select ▁▁▁▂▂▃▃▃▄▄▅▅▆▆▆▇▇███  95.00      loss █▄▃▂")
    assert lines[7] == "0:30 elapsed, about 3 min left, at most 12 min"
    clock.seconds += 160
    assert shown(picture)[-1] == "3:10 elapsed, about 10 s left, at most 9 min"
    clock.seconds += 21
    assert shown(picture)[-1] == "3:31 elapsed, at most 9 min left", "an estimate that was wrong isn't told any more"


@pytest.mark.parametrize("width", [1, 2, 10, 30, 40, 60, 80, 200])
@pytest.mark.parametrize("height", [1, 4, 6, 8, 12, 24, 50])
@pytest.mark.parametrize("plain", [False, True])
def test_it_never_wraps_or_fills_the_screen(width: int, height: int, plain: bool) -> None:  # noqa: FBT001 - a parameter
    lines = shown(watched(plain=plain)[0], width, height)
    assert 1 <= len(lines) <= max(1, height - BELOW)
    assert max(cell_len(line) for line in lines) <= max(width - 1, 1)
    assert not plain or "".join(lines).isascii()


def test_the_lines_stay_where_they_are_from_epoch_to_epoch() -> None:
    picture, _ = watched()
    before = shown(picture)
    picture.event(epoch(21, loss=1e-5, quality=100.0))
    after = shown(picture)
    assert len(before) == len(after)
    assert before[6].index("loss") == after[6].index("loss")


def test_another_phase_has_curves_of_its_own() -> None:
    picture, _ = watched()
    picture.now("the original model answers the training data, once")
    assert not any("loss" in line for line in shown(picture))
    picture.event(epoch(1, "learning-compression", loss=0.5, distance=8.5, mu=0.001))
    lines = shown(picture)
    assert lines[-4] == "learning-compression: step 1/30, 1.5 s"
    assert lines[-3].startswith("loss ▄")
    assert lines[-2].startswith("distance ▄")
    assert lines[-2].endswith("8.500, mu 0.00100")


def test_names_give_the_terminal_no_orders() -> None:
    picture, _ = watched()
    picture.now("w\x1b]0;title\x07\x1b[2J")
    picture.event(AttemptBegun(number=4, what="\x1b[2J (strength 0.5)", epochs=1))
    assert "\x1b" not in "".join(shown(picture))


def console(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, height=24, force_terminal=True, color_system=None)


def written(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def on_screen(text: str) -> list[str]:
    """The lines of a terminal after that text; it knows what the region uses, and no more."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[?\d]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part.endswith("A") and part[0] == "\x1b":
            row -= int(part[2:-1])
        elif part == "\x1b[K":
            lines[row] = lines[row][:column]
        elif part == "\x1b[J":
            lines[row:] = [lines[row][:column]]
        elif part[0] != "\x1b":
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return lines


def test_facts_stay_above_and_nothing_of_the_region_is_left() -> None:
    screen, lines = console(), [Text("head"), Text("phase"), Text("time")]
    region = Region(screen, lambda _width, _height: list(lines))
    region.start()
    screen.print(Text("fact one"), soft_wrap=True)
    lines[1:1] = [Text("row"), Text("row")]
    region.refresh()
    screen.print(Text("fact two"), soft_wrap=True)
    del lines[2:]
    region.refresh()
    assert on_screen(written(screen)) == ["fact one", "fact two", "head", "row"]
    region.stop()
    assert on_screen(written(screen)) == ["fact one", "fact two", ""]
    assert written(screen).endswith("\x1b[?25h"), "the cursor comes back"


def test_what_has_not_changed_is_not_drawn() -> None:
    screen = console()
    region = Region(screen, lambda _width, _height: [Text("phase")])
    region.start()
    before = written(screen)
    region.refresh()
    assert written(screen) == before
    region.stop()


def test_a_frame_drawn_while_a_library_is_silenced_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    real = io.StringIO()
    monkeypatch.setattr(sys, "stdout", real)
    screen = Console(width=80, height=24, force_terminal=True, color_system=None)
    lines = [Text("one")]
    region = Region(screen, lambda _width, _height: list(lines))
    region.start()
    with contextlib.redirect_stdout(io.StringIO()):
        lines.append(Text("two"))
        region.refresh()
    sys.stdout.write("printed by a library\n")
    assert on_screen(real.getvalue()) == ["printed by a library", "one", "two"]
    region.stop()
    assert sys.stdout is real


def test_a_narrower_screen_has_broken_the_lines() -> None:
    screen = console(80)
    region = Region(screen, lambda _width, _height: [Text("x" * 70), Text("y")])
    region.start()
    screen.width = 40
    region.refresh()
    region.stop()
    assert "\r\x1b[2A" in written(screen), "two of the three rows that they take now are above the cursor"


@pytest.mark.parametrize("forced", [False, True])
def test_a_log_gets_no_control_characters(
    monkeypatch: pytest.MonkeyPatch,
    report: Report,
    forced: bool,  # noqa: FBT001 - a parameter
) -> None:
    if forced:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with Terminal(console=Screen()) as terminal:
        assert isinstance(terminal, Watcher)
        terminal.say("original: 99 %")
        terminal.now("attempt 1: " + WHAT)
        terminal.event(AttemptBegun(number=1, what=WHAT, epochs=4))
        terminal.event(TimeLeft(seconds=5, at_most=9))
        terminal.event(epoch(1, loss=0.5))
        terminal.event(done(1))
        terminal.event(done(2))
        terminal.closing(report)
    assert isinstance(sys.stdout, io.StringIO)
    text = sys.stdout.getvalue()
    assert text.splitlines()[:3] == [
        "original: 99 %", f"attempt 1: {WHAT}", "attempts: 2, 2 kept; 8 epochs in 18.0 s",
    ]  # fmt: skip
    assert not re.search(r"\x1b\[[?\d;]*[A-HJKfhlsu]|\r", text), "nothing that moves the cursor or erases"
    assert forced or "\x1b" not in text


def test_a_dumb_terminal_is_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    screen = Console(file=io.StringIO(), width=80, force_terminal=True, no_color=True)
    with Terminal(console=screen) as terminal:
        terminal.say("original: 99 %")
        terminal.now("attempt 1: " + WHAT)
    assert written(screen) == f"original: 99 %\nattempt 1: {WHAT}\n"


def test_a_terminal_keeps_the_table_of_attempts(report: Report) -> None:
    screen = console()
    with Terminal(console=screen) as terminal:
        terminal.now("attempt 1: " + WHAT)
        terminal.event(done(1))
        terminal.closing(report)
    lines = on_screen(written(screen))
    assert lines[lines.index("Attempts") + 2].startswith(" 1  pruning 0.5")
    assert lines.index("Attempts") < lines.index("Result")
