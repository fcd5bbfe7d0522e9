"""The page about faults, made from the results."""

from __future__ import annotations

from collections import Counter
from typing import Any

Table = dict[str, dict[str, Any]]

HEAD = """# When a run is disturbed

## What is promised

- **A file is whole or not there.** Everything in OUT is written under a temporary name, flushed to the disk
  (fsync), then renamed, and the folder is flushed too. A kill can leave a `.name.number.tmp`, which the next
  run in that folder removes.
- **A run that is killed goes on.** What was decided and measured is in `OUT/journal`, training once an epoch.
  The same command with `--resume` ends in the same verdict; with `--budget Nep` and a size or compute objective
  `recipe.yaml` and the model's files are the same to the byte. With a budget of time, or for latency, the clock
  has a say in what is tried: then the verdict is the same wherever the margin is larger than the noise of the
  measurements.
- **Ctrl-C** ends a run with exit code 130 and one line that names `--resume`, even where a library makes
  another error of it.
- **A full disk** is exit code 2 and one line: which file, and what to do. With room again `--resume` goes on.
- **Out of memory while training**: the epoch begins anew with half as many samples at a time, whose gradients
  add up to the batch's (batch norm sees the smaller part), down to one sample, or two where there is batch
  norm. It is in the journal, so a resume does the same, and in the reason of the report's step. When that
  doesn't help either, exit code 2 and one line.
- **A loader that raises** is exit code 2 and one line: what, in which split, in which batch;
  `EASYCOMPRESS_DEBUG=1` shows its traceback. OUT is left alone, and once the loader is mended `--resume` goes
  on.
- **A loss that is NaN**, or beyond its bound, or weights that are no numbers: training goes back to the best
  epoch, at a tenth of the rate, at most twice; then it is given up. The attempt is judged by its file like
  every other, which rejects it unless the weights it went back to keep the floor. The report's step says how
  often it happened.
- **Budgets** count by the monotonic clock, across a resume and a reboot too: what the wall clock shows doesn't
  matter.
- **Two runs in one folder**: the second is refused at once, with one line. A killed run's lock is free.
- **A folder that can't be written to** is refused before the model is read.

## What is not promised

- The kernel's OOM killer is a SIGKILL: nothing is lost, but nothing is told either.
- Under a limit on the address space (`ulimit -v`) torch can fail to start a thread and then wait for it for ever.
- The temporary folder of a killed run (`easycompress-*` in TMPDIR) stays until the system clears it.
- Where memory is short in one run and not in another, batch norm sees other parts of a batch: the bytes differ.
- Locks of folders on network file systems are as good as that file system's `flock`.
- A disk that says that it has flushed and has not.

## What was done, and what came out

A small convolutional net on scikit-learn's digits, three goals: a packed file by learning-compression and fewer
operations by structured pruning, both with a budget of epochs, and quantization-aware training with a budget of
time. Runs are forked from a process that has imported everything, so a moment of a kill is one of work rather
than of imports. Every resume is compared with a run that nobody disturbed. Moments are drawn from fixed seeds,
uniformly over that run's work (processor time). Latency is measured briefly, and a search makes two attempts.

Made by `python -m benchmarks.faults` (as root: small file systems are mounted), this page by its `--page
docs/reliability.md`.
"""


def page(table: Table) -> str:
    """Return the results as Markdown: what is promised, a table of the faults, and the lines that were said."""
    count = sum(len(row["cases"]) for row in table.values())
    wrong = sum(bool(case["wrong"]) for row in table.values() for case in row["cases"].values())
    lines = [HEAD, f"**{count} cases, {count - wrong} as promised, {wrong} not.**", ""]
    lines += ["| fault | what is done | promise | cases | as promised |", "|---|---|---|---|---|"]
    for name, row in table.items():
        good = sum(not case["wrong"] for case in row["cases"].values())
        cells = (name, row["done"], row["promise"], _cases(row["cases"]), f"{good} of {len(row['cases'])}")
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    lines += ["", "What was said, or told in the report:", ""]
    for name, row in table.items():
        said = Counter(_shortened(case["ended"]) for case in row["cases"].values() if " " in case.get("ended", ""))
        lines += [f"- {name}: {text}{f' ({times} times)' if times > 1 else ''}" for text, times in said.items()]
    bad = [
        f"- {name}, {key}: {'; '.join(case['wrong'])}"
        for name, row in table.items()
        for key, case in row["cases"].items()
        if case["wrong"]
    ]
    return "\n".join(lines + (["", "Not as promised:", "", *bad] if bad else [])) + "\n"


def _cases(cases: dict[str, dict[str, Any]]) -> str:
    """Return how many cases there are, of random moments where the folder stood then."""
    if not all("share" in case and "ended" in case for case in cases.values()):
        return str(len(cases))
    stood = Counter(case["state"] for case in cases.values())
    words = {"empty": "before the first entry", "missing": "before the first entry", "interrupted": "in the middle"}
    told: Counter[str] = Counter()
    for state, times in stood.items():
        told[words.get(state, "at its end")] += times
    return f"{len(cases)}: " + ", ".join(f"{times} {where}" for where, times in sorted(told.items()))


def _shortened(text: str) -> str:
    """Return a line without the name of the file that it is about, where that is one of many."""
    where, mark, rest = text.partition(": can't be written")
    return f"OUT/...{mark}{rest}" if mark and "baseline" not in where else text
