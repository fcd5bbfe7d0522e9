"""The rivals' tables, made from the results: what each wrote, theirs against ours, and floors that can't be met."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.markdown import NOT_RUN, count, table
from benchmarks.rivals_field import ALLOWED, BUSY, EVERY, OURS, REASONS, RIVALS, USELESS, Ours, Rival, key

if TYPE_CHECKING:
    from collections.abc import Callable

Held = dict[str, dict[str, Any]]

CONFIGURATIONS = ((1, 0), (1, 1), (2, 0), (2, 1))
"""(threads, which of the model's two batch sizes)."""

LEVEL = 1.02
"""Times closer than this to each other are called level: a quiet machine repeats itself no better."""

INTRODUCTION = """Each rival gets the same trained file, at most 512 training samples to calibrate with, the validation
split to tune on, and a process of its own; what it writes is judged on the 10 000 (MiniLM: 1 821) test samples, paired
with the float file, and timed by stock ONNX Runtime, all files of a model in the same alternating blocks. Bytes are the
written file's; *bare* is without node names and exporters' remarks, which ours never has. *Lines* are the script that
its user writes, without blank lines and comments; ours is one command. Drops are in points, in brackets the most that
they are with 95 % confidence; seconds include starting Python."""


def lines(held: Held) -> list[str]:
    """Return the whole section, a line each."""
    parts = [INTRODUCTION, _versions(held)]
    for model in EVERY:
        parts += [f"### {model}: what each wrote", overview(held, model)]
    parts += ["### Size: the smallest file that stock ONNX Runtime runs", against(held, "size")]
    parts += ["### Transport: files that are decoded before they run", against(held, "packed"), NNCODEC_NOTE]
    parts += ["### Latency", against(held, "latency"), _load_note(held)]
    parts += ["### Asked for too much", asked_too_much(held)]
    return [line for part in parts if part for line in (*part.split("\n"), "")]


NNCODEC_NOTE = "NNCodec's bytes are the weights alone, without the graph that runs them; ours hold the graph."


def overview(held: Held, model: str) -> str:
    """Return what every rival and every run of ours wrote for one model."""
    rows = []
    for who in _who(model):
        row = held.get(f"{model} | {key(who)}")
        if row is None:
            rows.append([key(who), NOT_RUN])
        elif row["status"] == "absent":
            rows.append([key(who), f"absent: {row['reason']}"])
        elif row["status"] == "failed":
            size = f"; {row['file']}, {count(row['bytes'])} bytes" if "bytes" in row else ""
            rows.append([key(who), f"failed: {row['reason']}{size}", "", "", "", str(row["lines"]), _seconds(row)])
        else:
            rows.append([key(who), *_facts(row), str(row["lines"]), _seconds(row)])
    return table(["", "bytes of the file", "bare", "smaller", "drop", "lines", "seconds"], rows)


def against(held: Held, objective: str) -> str:
    """Return theirs beside ours for one objective: ours at most ALLOWED points worse than theirs."""
    pairs = [(m, who) for m in EVERY for who in RIVALS if m in who.models and not who.asks_too_much and who.script]
    pairs = [(m, who) for m, who in pairs if who.transport == (objective == "packed")]
    rows = []
    for model, who in pairs:
        theirs = held.get(f"{model} | {who.name}")
        if theirs is None:
            rows.append([model, who.name, NOT_RUN])
        elif theirs["status"] == "ok" and (objective != "latency" or theirs["file"].endswith(".onnx")):
            rows.append([model, who.name, *_beside(held, model, who.name, objective)])
    if objective == "latency":
        head = ["model", "rival", "its drop", "times faster than float", "ours: drop", "times faster", "ours is"]
    else:
        head = ["model", "rival", "its drop", "its bytes", "ours: drop", "bytes", "ours is"]
    return table(head, rows)


def _beside(held: Held, model: str, rival: str, objective: str) -> list[str]:
    """Return the cells of theirs and of ours, and who is ahead."""
    theirs, behind = held[f"{model} | {rival}"], REASONS.get((model, rival, objective))
    value: Callable[[dict[str, Any]], str] = _faster if objective == "latency" else lambda row: count(row["bytes"])
    cells = [_drop(theirs), value(theirs)]
    if theirs["drop"] > USELESS:
        return [*cells, "", "", f"not compared: its file loses more than {USELESS:g} points"]
    runs = [who for who in OURS if who.objective == objective and model in who.models and not who.asks_too_much]
    known = [held[name] for who in runs if (name := f"{model} | {key(who)}") in held]
    known = [row for row in known if row["status"] == "ok"]
    if not known:
        return [*cells, "", "", NOT_RUN]
    fit = [row for row in known if row["drop"] <= theirs["drop"] + ALLOWED + 1e-9]
    if not fit:
        nearest = min(known, key=lambda row: float(row["drop"]))
        more = nearest["drop"] - theirs["drop"] - ALLOWED
        said = f"no match: its drop is {more:.2f} more than the {ALLOWED} allowed"
        return [*cells, _drop(nearest), value(nearest), _reasoned(said, behind, nearest)]
    if objective != "latency":
        best = min(fit, key=lambda row: int(row["bytes"]))
        ratio = theirs["bytes"] / best["bytes"]
        said = f"**{ratio:.2f}x smaller**" if ratio > 1 else f"{1 / ratio:.2f}x larger"
        return [*cells, _drop(best), value(best), said if ratio > 1 else _reasoned(said, behind, best)]
    if "latency" not in theirs or not any("latency" in row for row in fit):
        return [*cells, _drop(fit[0]), value(fit[0]), NOT_RUN]
    best = min((row for row in fit if "latency" in row), key=lambda row: _share(row, 0))
    said = _who_is_faster(theirs, best)
    not_ahead = "slower" in said or "level" in said
    return [*cells, _drop(best), value(best), _reasoned(said, behind, best) if not_ahead else said]


def _reasoned(said: str, reason: str | None, row: dict[str, Any]) -> str:
    """Return the distance with what our run did, and the reason where it has been looked into."""
    did = f"ours: {' + '.join(row['kept']) or 'nothing kept'}, {row['epochs']} epochs, verdict {row['verdict']}"
    return f"{said} ({did}{f'; {reason}' if reason else ''})"


def _who_is_faster(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """Return how many times faster ours is than theirs, by batch size and threads."""
    said = []
    for place, name in enumerate(theirs["latency"]["ms"]):
        ratio = _share(theirs, place) / _share(ours, place)
        verdict = f"**{ratio:.2f}x faster**" if ratio > LEVEL else f"{1 / ratio:.2f}x slower"
        said.append(f"{'level' if 1 / LEVEL <= ratio <= LEVEL else verdict} ({_short(name)})")
    return ", ".join(said)


def _share(row: dict[str, Any], place: int) -> float:
    """Return a file's time as a share of the float file's in the same blocks."""
    before, after = list(row["latency"]["ms"].values())[place]
    return float(after / before)


def _faster(row: dict[str, Any]) -> str:
    if "latency" not in row:
        return NOT_RUN
    mark = "†" if busy(row["latency"]) else ""
    return ", ".join(f"{1 / _share(row, i):.2f}x ({_short(n)})" for i, n in enumerate(row["latency"]["ms"])) + mark


def _short(name: str) -> str:
    """Return `1 threads, batch 64` as `64/1`."""
    threads, _, batch = name.partition(" threads, batch ")
    return f"{batch}/{threads}"


def asked_too_much(held: Held) -> str:
    """Return what each does when its floor can't be met, and which rivals take none."""
    rows = []
    every: list[Rival | Ours] = [*RIVALS, *OURS]
    asked = [who for who in every if who.asks_too_much]
    for who in asked:
        for model in who.models:
            row = held.get(f"{model} | {key(who)}")
            if row is None or row["status"] == "absent":
                rows.append([key(who), model, NOT_RUN if row is None else f"absent: {row['reason']}"])
                continue
            wrote = f"{row['file']}, {count(row['bytes'])} bytes, drop {row['drop']:.2f}" if "drop" in row else "no"
            goal = f"drop at most {who.floor}" if isinstance(who, Rival) else " ".join(who.flags[2:4])
            rows.append([key(who), model, goal, str(row["exit"]), wrote, row["said"][-1] if row["said"] else "nothing"])
    without = {who.package for who in RIVALS if who.script} - {who.package for who in RIVALS if who.floor}
    head = ["", "model", "asked", "exit code", "a file", "its last line"]
    return f"{table(head, rows)}\n\nNo floor can be given to {', '.join(sorted(without))}."


def _facts(row: dict[str, Any]) -> list[str]:
    bare = count(row["stripped"]) if "stripped" in row else ""
    return [count(row["bytes"]), bare, f"{row['plain_bytes'] / row['bytes']:.2f}x", _drop(row)]


def _drop(row: dict[str, Any]) -> str:
    return f"{row['drop']:.2f} ({row['upper_95']:.2f})" if "drop" in row else ""


def _seconds(row: dict[str, Any]) -> str:
    return f"{row['seconds']:.0f}"


def _who(model: str) -> list[Rival | Ours]:
    every: list[Rival | Ours] = [*RIVALS, *OURS]
    return [who for who in every if model in who.models and not who.asks_too_much]


def _versions(held: Held) -> str:
    found = sorted({f"{row['package']} {row['version']}" for row in held.values() if "version" in row})
    return f"Versions: {', '.join(found)}." if found else ""


def _load_note(held: Held) -> str:
    times = [row["latency"] for row in held.values() if "latency" in row]
    if not any(map(busy, times)):
        return "Written as batch/threads."
    cores = max(time["others"] for time in times)
    return (
        f"Written as batch/threads. † timed while other processes kept up to {cores:.1f} cores busy: to be run again "
        "on a quiet machine, by `--again latency`."
    )


def busy(latency: dict[str, Any]) -> bool:
    """Return whether a latency was measured beside other work, so that it doesn't speak."""
    return float(latency["others"]) > BUSY
