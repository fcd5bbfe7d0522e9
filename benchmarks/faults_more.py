"""The faults that aren't random: each step of writing, memory, loaders, losses, clocks, folders, a second run."""

from __future__ import annotations

import json
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import faults_traps as trap
from benchmarks.faults_checks import broken, differences, report_of
from benchmarks.faults_rows import MOMENTS, Row, one_line, stopped
from easycompress.executor.journal import PARTS, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.faults_rows import Bench, Result, Trap

    Cases = Iterator[tuple[str, Callable[[], Result]]]

FULL = ("can't be written (No space left on device); free space there",)

FITTING = 40
"""Samples that memory suffices for: a part of a batch, and not all of it."""

WAITED = 60.0
"""Seconds after which what is waited for is not coming."""


def _full_disk(bench: Bench) -> Cases:
    for goal in ("size", "compute"):
        into = bench.case.folder / f"writes-{goal}.txt"
        into.unlink(missing_ok=True)
        bench.reference(goal, " listed", trap.list_writes(into))
        names = into.read_text().split("\n")[:-1]
        first = {name: number for number, name in reversed(list(enumerate(names)))}
        numbers = sorted({*first.values(), *range(0, len(names), 5), len(names) - 1})
        for number in numbers:
            yield f"{goal}: write {number + 1}, {names[number]}", partial(_full_at, bench, goal, number)


def _full_at(bench: Bench, goal: str, number: int) -> Result:
    folder = bench.case.folder / "disk"
    with trap.disk(folder, "16m") as mounted:
        if not mounted:
            return {"ended": trap.NO_ROOT, "wrong": []}
        out, filler = folder / "out", folder / "filler"
        ended = bench.case.run(goal, out, before=trap.full_at(number, filler))
        wrong = one_line(ended, 2, *FULL)
        wrong += broken(out) if out.exists() else []
        filler.unlink(missing_ok=True)
        return {"ended": _said(ended.last, out), "state": state_of(out), "wrong": wrong + bench.resumed(goal, out)}


def _full_scratch(bench: Bench) -> Cases:
    def case() -> Result:
        folder = bench.case.folder / "disk"
        with trap.disk(folder, "32k") as mounted:
            if not mounted:
                return {"ended": trap.NO_ROOT, "wrong": []}
            out = bench.fresh()
            ended = bench.case.run("size", out, before=trap.scratch_in(folder))
        wrong = one_line(ended, 2, *FULL, "TMPDIR")
        return {"ended": _said(ended.last, folder), "wrong": wrong + bench.resumed("size", out)}

    yield "32 kB", case


def _read_only(bench: Bench) -> Cases:
    def case(*, begun: bool) -> Result:
        folder = bench.case.folder / "disk"
        with trap.disk(folder, "16m") as mounted:
            if not mounted:
                return {"ended": trap.NO_ROOT, "wrong": []}
            out = folder / "out"
            more: tuple[str, ...] = ()
            if begun:
                process, more = bench.case.start("size", out), ("--resume",)
                _wait((out / "journal" / "attempt 1.lc.checkpoint").exists)
                process.send(signal.SIGKILL)
                process.end()
            _wait(lambda: trap.read_only(folder))
            ended = bench.case.run("size", out, *more)
            wrong = one_line(ended, 2, "can't be written to; choose another folder with -o")
            if ended.text.count("\n") > 1:
                wrong.append("it had begun to work")
        return {"ended": _said(ended.last, folder), "seconds": round(ended.seconds, 1), "wrong": wrong}

    yield "a new run", lambda: case(begun=False)
    yield "a run that was killed before", lambda: case(begun=True)


def _two_runs(bench: Bench) -> Cases:
    def case(*more: str) -> Result:
        reference, whole = bench.reference("size")
        out = bench.fresh()
        first = bench.case.start("size", out)
        _wait((out / "journal" / "lock").exists)
        begin = time.monotonic()
        second = bench.case.run("size", out, *more)
        seconds = time.monotonic() - begin
        wrong = one_line(second, 2, "another easycompress is working in there; wait for it or use another -o")
        if second.text.count("\n") > 1:
            wrong.append("it had begun to work")
        wrong += differences(out, first.end().code, reference, whole.code, bytes_too=True)
        return {"ended": _said(second.last, out), "seconds": round(seconds, 1), "wrong": wrong}

    for more in ((), ("--resume",), ("--force",)):
        yield f"the second with {more[0] if more else 'no flag'}", partial(case, *more)


def _memory(bench: Bench) -> Cases:
    few = trap.little_memory(FITTING)

    def ends(most: int) -> Result:
        out = bench.fresh()
        ended = bench.case.run("memory", out, before=trap.little_memory(most))
        journal = json.loads((out / "journal" / "journal.json").read_text())
        wrong = one_line(ended, 2, "out of memory", "--resume") + broken(out)
        parts = int(journal["entries"].get(PARTS, 1))
        wrong += [f"the journal says {journal['state']}"] if journal["state"] != "running" else []
        return {"ended": _said(ended.last, out), "parts": parts, "wrong": wrong}

    def goes_on() -> Result:
        out, ended = bench.reference("memory", " with little", few)
        return _told(out, ended.code, "memory was short: batches in")

    def killed() -> Result:
        out, _, result = stopped(bench, "memory", 0.6, signal.SIGKILL, few, " with little")
        journal = json.loads((out / "journal" / "journal.json").read_text())
        parts = int(journal["entries"].get(PARTS, 1))
        wrong = [] if parts > 1 else ["killed too early"]
        return result | {"parts": parts, "wrong": wrong + bench.resumed("memory", out, name=" with little")}

    yield f"{FITTING} samples fit", goes_on
    yield f"{FITTING} samples fit, killed, resumed with enough", killed
    yield "not one sample fits", lambda: ends(0)


def _told(out: Path, code: int, words: str) -> Result:
    """Return what a run came to whose report must hold some words in the reason of a step."""
    reasons = [str(step["reason"]) for step in report_of(out)["steps"]] if code in (0, 1) else []
    told = [reason for reason in reasons if words in reason]
    wrong = ([] if code in (0, 1) else [f"exit code {code}"]) + ([] if told else [f"{words!r} isn't in the report"])
    return {"ended": told[0] if told else "", "wrong": wrong + broken(out)}


def _loader(bench: Bench) -> Cases:
    mark = bench.case.folder / "broken"
    words = ("train: reading batch 3 raised OSError: the share is gone", "mend the loader")

    def case(*, begun: bool) -> Result:
        bench.reference("loader")
        if begun:
            out, _, result = stopped(bench, "loader", 0.7, signal.SIGKILL)
        else:
            out, result = bench.fresh(), {"wrong": []}
        before = state_of(out)
        mark.touch()
        ended = bench.case.run("loader", out, "--resume")
        mark.unlink()
        wrong = result["wrong"] + one_line(ended, 2, *words)
        if state_of(out) != before:
            wrong.append(f"the folder was {before} and is {state_of(out)}")
        return {"ended": _said(ended.last, out), "state": before, "wrong": wrong + bench.resumed("loader", out)}

    yield "a new run", lambda: case(begun=False)
    yield "the resume of a killed run", lambda: case(begun=True)


def _no_number(bench: Bench) -> Cases:
    for times, name in ((1, "once in each training"), (99, "for ever")):
        before, key = trap.no_number(times), f" no number {times}"

        def goes_on(before: Trap = before, key: str = key) -> Result:
            out, ended = bench.reference("compute", key, before)
            return _told(out, ended.code, "the loss diverged")

        def again(before: Trap = before, key: str = key) -> Result:
            out, _, result = stopped(bench, "compute", 0.6, signal.SIGKILL, before, key)
            return result | {"wrong": result["wrong"] + bench.resumed("compute", out, before, key)}

        yield name, goes_on
        yield f"{name}, killed and resumed", again


def _clock(bench: Bench) -> Cases:
    def jumps(goal: str) -> Result:
        out = bench.fresh()
        reference, whole = bench.reference(goal)
        ended = bench.case.run(goal, out, before=trap.jumping_clock)
        wrong = differences(out, ended.code, reference, whole.code, bytes_too=goal != "time")
        return {"ended": ended.last[:60] if wrong else "the same", "wrong": wrong}

    def reboot(goal: str) -> Result:
        out, ended, result = stopped(bench, goal, 0.5, signal.SIGKILL)
        begin = time.monotonic()
        wrong = result["wrong"] + bench.resumed(goal, out, trap.rebooted)
        most = ended.seconds + time.monotonic() - begin
        spent = float(report_of(out)["environment"]["seconds"]) if not wrong else 0.0
        if not 0 < spent < most:
            wrong.append(f"{spent} s were counted of {most:.1f}")
        return result | {"ended": f"{spent} s counted over both", "wrong": wrong}

    for goal in ("size", "time"):
        yield f"{goal}: the wall clock jumps by years", partial(jumps, goal)
        yield f"{goal}: killed, resumed after a reboot", partial(reboot, goal)


def _wait(until: Callable[[], Any]) -> None:
    end = time.monotonic() + WAITED
    while not until():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.005)


def _said(line: str, folder: Path) -> str:
    """Return a line without where this run was made."""
    return line.removeprefix("easycompress: ").replace(f"{folder}/", "OUT/").replace(str(folder), "OUT")


ROWS: dict[str, Row] = MOMENTS | {
    "disk full": Row(
        "the disk of OUT is full from one step of writing on (one in memory, truly full), then has room again",
        "exit 2 with one line that names the file; no half file; `--resume` ends as if nothing had been",
        _full_disk,
    ),
    "temporary folder full": Row(
        "no room for the original's file in the temporary folder",
        "exit 2 with one line that names TMPDIR; nothing in OUT",
        _full_scratch,
    ),
    "read-only": Row(
        "OUT on a file system that is mounted read-only",
        "exit 2 with one line, before the model is read",
        _read_only,
    ),
    "two runs": Row(
        "a second run in the folder of one that is at work",
        "the second exits 2 with one line at once; the first ends as if nothing had been",
        _two_runs,
    ),
    "out of memory": Row(
        "the allocator fails when training answers more samples at a time than a little memory holds",
        "batches in parts, told in the report and kept for a resume; else exit 2 with one line",
        _memory,
    ),
    "loader raises": Row(
        "the user's loader raises on its third batch, and is mended",
        "exit 2 with one line: what, which split, which batch; OUT untouched; `--resume` ends as if nothing had been",
        _loader,
    ),
    "NaN loss": Row(
        "the loss is NaN from the second epoch of every training on",
        "back to the best epoch at a tenth of the rate, at most twice; the attempt is judged and the report says so",
        _no_number,
    ),
    "clock": Row(
        "the wall clock jumps; the monotonic clock starts anew between kill and resume (a time namespace)",
        "the same verdict and bytes; the time of both parts is counted",
        _clock,
    ),
}
