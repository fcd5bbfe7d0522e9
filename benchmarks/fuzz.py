"""Damaged .ecz and .onnx files by the hundred thousand, read as the product reads them: what comes of each.

`python -m benchmarks.fuzz --files 200000 --seed 0` makes a tiny net's files in every stored form, damages copies of
them (see fuzz_mutations) and reads each in a worker that is used again and replaced when it dies, under a limit on its
memory and five seconds. It goes on where it was stopped; `--again` begins anew, `--retry` reads what failed again,
`--page docs/security.md` writes the page's numbers, `--only 4711` reads one file here and shows what happens, `--keep
FILE` with it writes the damaged file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.fuzz_page import table, with_numbers
from benchmarks.fuzz_reading import FAILURES, SECONDS, Corpus, Outcome, Reading, work
from benchmarks.fuzz_seeds import make_seeds

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
WALL = 600.0
"""Seconds by the clock after which a worker that uses no processor counts as stuck: others may be using it."""
CHUNK = 2000
"""Files a worker reads before it is replaced anyhow, so that no leak adds up."""


def main() -> int:
    """Read the files that are still to be read, print the table; return 1 where one of them is a failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "easycompress-fuzz")
    parser.add_argument("--again", action="store_true", help="forget what was read before")
    parser.add_argument("--retry", action="store_true", help="read again what failed, after a mend")
    parser.add_argument("--only", type=int, help="read the file of this number, in this process")
    parser.add_argument("--keep", type=Path, help="with --only: write that file")
    parser.add_argument("--page", type=Path, help="write the numbers into a page, and read nothing")
    given = parser.parse_args()
    if given.page:
        given.page.write_text(with_numbers(given.page.read_text(), json.loads(RESULTS.read_text())))
        return 0
    torch.set_num_threads(1)
    folder = given.scratch / f"seed-{given.seed}"
    corpus = Corpus(_seeds(given.scratch / "whole"), given.seed)
    if given.only is not None:
        return _one(corpus, given.only, given.keep)
    folder.mkdir(parents=True, exist_ok=True)
    results = _results(folder / f"outcomes-{given.files}", given.files, again=given.again)
    if given.retry:
        results[np.isin(np.asarray(results), FAILURES)] = Outcome.UNKNOWN
    before = int((results == Outcome.UNKNOWN).sum())
    _read_all(corpus, folder, results)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    facts = _facts(corpus, results, given.seed)
    if before > CHUNK or not RESULTS.exists():
        facts["files_a_second"] = round(before / (used.ru_utime + used.ru_stime))
    else:
        facts["files_a_second"] = json.loads(RESULTS.read_text())["files_a_second"]
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
    print(table(facts))
    return 1 if facts["failures"] else 0


def _seeds(folder: Path) -> list[Path]:
    """Make the whole files in a process of their own: this one is to fork workers, and opens no session before."""
    child = os.fork()
    if not child:
        try:
            torch.set_num_threads(1)
            make_seeds(folder)
        except BaseException:  # noqa: BLE001 - this process only tells whether it went well
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("the whole files couldn't be made")
    return make_seeds(folder)


def _results(path: Path, files: int, *, again: bool) -> Any:  # noqa: ANN401 - an array in a file
    """Return the outcomes so far, a byte for each file, kept in a file of the scratch folder."""
    if again or not path.exists() or path.stat().st_size != files:
        path.write_bytes(bytes(files))
    return np.memmap(path, np.uint8, "r+")


def _read_all(corpus: Corpus, folder: Path, results: Any) -> None:  # noqa: ANN401 - an array
    """Let workers read all files without an outcome, CHUNK at a time; what kills one gets the outcome of that."""
    (folder / "state").write_bytes(bytes(24))
    state: Any = np.memmap(folder / "state", np.int64, "r+")
    log, said = folder / "failures.txt", 0
    while len(left := np.flatnonzero(np.asarray(results) == Outcome.UNKNOWN)):
        state[:] = 0
        worker = os.fork()
        if not worker:
            _work(corpus, folder, left[:CHUNK].tolist(), results, state, log)
        _watch(worker, results, state, log)
        if len(results) - len(left) >= said:
            print(f"{len(results) - len(left)} of {len(results)}", flush=True)
            said += max(1, len(results) // 20)


def _work(corpus: Corpus, folder: Path, numbers: list[int], results: Any, state: Any, log: Path) -> None:  # noqa: ANN401
    quiet = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    try:
        work(corpus, folder, numbers, results, state, log)
    except BaseException:  # noqa: BLE001 - told by the log
        with log.open("a") as file:
            file.write(f"--- worker ended by {sys.exc_info()!r}\n")
        os._exit(1)
    os._exit(0)


def _watch(worker: int, results: Any, state: Any, log: Path) -> None:  # noqa: ANN401 - arrays
    """Wait for a worker; stop it where a file takes too long. Give the file on which it ended its outcome."""
    number, since = 0, time.monotonic()
    while True:
        ended, status = os.waitpid(worker, os.WNOHANG)
        if ended:
            break
        time.sleep(0.02)
        if int(state[0]) != number:
            number, since = int(state[0]), time.monotonic()
        if number and (_processor(worker) - state[2] / 1e3 > SECONDS or time.monotonic() - since > WALL):
            os.kill(worker, signal.SIGKILL)
            _, status = os.waitpid(worker, 0)
            if int(state[0]) == number and not results[number - 1]:
                _ended(number - 1, Outcome.STOPPED_APART if state[1] else Outcome.HUNG, status, results, log)
            return
    if int(state[0]) and not results[int(state[0]) - 1]:
        _ended(int(state[0]) - 1, Outcome.CRASHED_APART if state[1] else Outcome.CRASHED, status, results, log)


def _ended(number: int, outcome: Outcome, status: int, results: Any, log: Path) -> None:  # noqa: ANN401 - an array
    results[number] = outcome
    with log.open("a") as file:
        file.write(f"--- {number} {outcome.name} status {status}\n")


def _processor(process: int) -> float:
    """Return the seconds of processor time that a process has used."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _facts(corpus: Corpus, results: Any, seed: int) -> dict[str, Any]:  # noqa: ANN401 - an array
    """Return what the table says: outcomes by kind of file and mutation, and the numbers of all failures."""
    counts: dict[str, dict[str, Counter[str]]] = {}
    failures = []
    for number, outcome in enumerate(np.asarray(results).tolist()):
        source, mutation = corpus.named(number)
        kind = counts.setdefault(source.suffix, {}).setdefault(mutation, Counter())
        kind[Outcome(outcome).name.lower()] += 1
        if outcome in FAILURES:
            failures.append([number, Outcome(outcome).name.lower(), source.name, mutation])
    return {
        "seed": seed,
        "files": len(results),
        "whole_files": len(corpus.files),
        "outcomes": {
            suffix: {name: dict(count) for name, count in sorted(of.items())} for suffix, of in counts.items()
        },
        "failures": failures,
    }


def _one(corpus: Corpus, number: int, keep: Path | None) -> int:
    case = corpus.case(number)
    if keep:
        keep.write_bytes(case.data)
    print(f"{number}: {case.source.name} by {case.mutation!r}, {len(case.data)} bytes", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        reading = Reading(corpus, Path(folder), lambda name: print(f"in {name} code", flush=True))
        outcome = reading.read(number)
    print(outcome.name, reading.said)
    return int(outcome in FAILURES)


if __name__ == "__main__":
    raise SystemExit(main())
