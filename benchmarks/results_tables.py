"""A short table of each benchmark's JSON; what was planned but isn't there is said to be not run."""

from __future__ import annotations

from collections import Counter
from typing import Any

from benchmarks import architectures_page, coverage_page, fuzz_page, regression_page
from benchmarks.goals import ROWS as GOALS
from benchmarks.lc_rows import ROWS as LC
from benchmarks.lc_rows import UNTRAINED
from benchmarks.markdown import NOT_RUN, count, table
from benchmarks.unstructured import STUDY

Json = Any


def lc(held: Json) -> str:
    """Return ratios, drops and epochs of the learning-compression rows."""
    head = ["row", "goal", "drop", "by the papers' formula", "`model.onnx`", "`model.ecz`", "epochs", "seconds"]
    rows = []
    for row in (*LC, *UNTRAINED):
        found = held["rows"].get(row.name)
        facts = [NOT_RUN] if found is None else [_drop(found["report"]["drop"], found["report"]["upper_95"])]
        if found is not None:
            facts += [f"{found[f'{name}_ratio']:.1f}x" for name in ("onnx", "ecz")]
            facts.insert(1, f"{found['rho_storage_formula']:.1f}x")
            facts += [str(found["epochs"]), f"{found['seconds']:.0f}"]
        rows.append([row.name, row.goal, *facts])
    return table(head, rows)


def goals(held: Json) -> str:
    """Return what whole runs with a goal reached."""
    head = ["run", "goal", "verdict", "drop", "bytes", "MACs", "time", "kept", "epochs", "seconds"]
    rows = []
    for row in GOALS:
        found = held.get(row.name)
        if found is None:
            rows.append([row.name, row.goal, NOT_RUN])
            continue
        times = ", ".join(f"{ratio:.2f}x at batch {batch}" for batch, ratio in found["latency_ratios"].items())
        ratios = [f"{found['size_ratio']:.2f}x", f"{found['compute_ratio']:.2f}x", times]
        kept = " + ".join(action for action in found["kept"] if action != "search")
        effort = [str(found["epochs"]), f"{found['seconds']:.0f}"]
        rows.append(
            [row.name, row.goal, found["verdict"], _drop(found["drop"], found["upper_95"]), *ratios, kept, *effort]
        )
    return table(head, rows)


def qat(held: Json) -> str:
    """Return quantization-aware training beside static int8."""
    head = ["model", "epochs", "seconds", "float", "static int8: drop", "QAT: drop", "file agrees", "bytes", "speed"]
    rows = [
        [
            model, str(row["epochs"]), f"{row['seconds']:.0f}", f"{row['float']:.2f} %", _drop(*row["drops"]["static"]),
            _drop(*row["drops"]["qat"]), f"{row['agreement']:.2f} %",
            f"{count(row['bytes']['float'])} to {count(row['bytes']['qat'])}", f"{row['speed']:.2f} of float training",
        ]
        for model, row in held.items()
    ]  # fmt: skip
    return table(head, rows)


def distillation(held: Json) -> str:
    """Return how well each technique brings a pruned student back."""
    head = ["model", "technique", "epochs", "original", "pruned", "recovered", "seconds"]
    rows = [
        [row["model"], row["technique"], str(row["epochs"])]
        + [f"{row[name]:.2f} %" for name in ("original", "pruned", "recovered")]
        + [f"{row['seconds']:.0f}"]
        for row in held
    ]
    return table(head, rows)


def unstructured(held: Json) -> str:
    """Return 99 % of the weights removed, beside the comparative study's accuracies."""
    head = [
        "method",
        "weights left",
        "test accuracy",
        "the study's",
        "`model.onnx`",
        "`model.ecz`",
        "epochs",
        "seconds",
    ]
    rows = [
        [
            row["method"], f"{row.get('kept', 1):.0%}", f"{row['test']:.2f} %",
            f"{STUDY[row['method']]:.2f} %" if row["method"] in STUDY else "",
            *(count(row[name]) for name in ("onnx_bytes", "ecz_bytes")),
            str(row.get("epochs", row["asked"])), f"{row['seconds']:.0f}",
        ]
        for row in held
    ]  # fmt: skip
    return table(head, rows)


def overhead(held: Json) -> str:
    """Return what the training loop costs over a bare one, and where one run's seconds went."""
    head = [
        "model", "samples a second, bare loop", "ours", "share", "a compiled step", "its first, s",
        "one `compress`, s", "training", "teacher, C steps, calibration, judging, timing", "start", "the rest",
        "the same epochs in the bare loop, s",
    ]  # fmt: skip
    rows = []
    held = {model: row for model, row in held.items() if "compiled" in row}  # as this version measures them
    if not held:
        return NOT_RUN
    for model, row in held.items():
        speed, run, made = row["throughput"], row["compress"], row["compiled"]
        total = run["total"]
        rest = total - run["needed"] - run["starting"]
        shares = (run["training"], run["needed"] - run["training"], run["starting"], rest)
        rows.append(
            [
                model, count(speed["bare"]), count(speed["easycompress"]), f"{speed['ratio']:.1%}",
                f"{made['compiled'] / made['eager']:.2f} of the time", f"{made['first']:.0f}", f"{total:.0f}",
                *(f"{part / total:.0%}" for part in shares), f"{run['plain_epochs']:.0f}",
            ]
        )  # fmt: skip
    told = "\n".join(f"- {model}: {row['compress']['summary']}" for model, row in held.items())
    return f"{table(head, rows)}\n\n{told}"


def scale(held: Json) -> str:
    """Return seconds and memory against the number of parameters."""
    head = ["parameters", "profile, s", "plan, s", "peak, GB", "weight-only, s", "peak, GB", "smaller"]
    rows = [
        [
            count(row["parameters"]), f"{row['profile']['seconds']:.1f}", f"{row['plan']['seconds']:.2f}",
            f"{row['plan']['peak_bytes'] / 1e9:.2f}", f"{row['weight_only']['seconds']:.1f}",
            f"{row['weight_only']['peak_bytes'] / 1e9:.2f}", f"{row['original_bytes'] / row['bytes']:.2f}x",
        ]
        for row in held.values()
    ]  # fmt: skip
    return table(head, rows)


def coverage(held: Json) -> str:
    """Return how many models work."""
    return f"{coverage_page.summary(list(held.values()))}. Every row: [docs/coverage.md](../docs/coverage.md)."


def architectures(held: Json) -> str:
    """Return how many pairs of architecture and technique work."""
    whole = "Every cell: [docs/architectures.md](../docs/architectures.md)."
    return f"{len(held)} architectures: {architectures_page.summary(held)}. {whole}"


def faults(held: Json) -> str:
    """Return how many disturbed runs went as promised."""
    rows = []
    for name, row in held.items():
        good = sum(not case["wrong"] for case in row["cases"].values())
        rows.append([name, row["done"], str(len(row["cases"])), str(good)])
    whole = "What is promised: [docs/reliability.md](../docs/reliability.md)."
    return f"{table(['fault', 'what is done', 'cases', 'as promised'], rows)}\n\n{whole}"


def fuzz(held: Json) -> str:
    """Return what became of damaged files."""
    more = "By kind of damage: [docs/security.md](../docs/security.md)."
    return f"{fuzz_page.table(held)}\n\n{len(held['failures'])} failures. {more}"


def numerics(held: Json) -> str:
    """Return what became of nets with unusual numbers."""
    states = Counter[str]()
    for row in held["table"].values():
        states.update(row)
    said = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    return f"{held['nets']} random nets of {len(held['table'])} kinds: {said}, {len(held['wrong'])} wrong."


def verdicts(held: Json) -> str:
    """Return how often certificates are wrong at worst."""
    exact = [row for name, row in held.items() if name.startswith("accuracy")]
    rows = [[rule, f"{max(row[rule] for row in exact):.1f} %"] for rule in ("wald", "tango", "easycompress")]
    whole = "Every setting: [docs/verdicts.md](../docs/verdicts.md)."
    return f"{table(['rule', 'wrong certificates of accuracy, at worst (5 % may be)'], rows)}\n\n{whole}"


def regression(held: Json) -> str:
    """Return what `easycompress check` let pass, and what it caught."""
    return regression_page.table(held)


def _drop(estimate: float, upper: float) -> str:
    return f"{estimate:.2f} ({upper:.2f})"
