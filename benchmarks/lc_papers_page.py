"""The LC papers' experiments as Markdown: ours beside the papers'."""

from __future__ import annotations

from typing import Any

from benchmarks.lc_papers_logistic import PAPER, PAPER_EPOCHS
from benchmarks.lc_papers_logistic import ROWS as LOGISTIC
from benchmarks.lc_papers_reasons import REASONS
from benchmarks.lc_papers_rows import ROWS, TABLES, PaperRow
from benchmarks.markdown import NOT_RUN, count, table

Json = dict[str, Any]

INTRODUCTION = (
    "This product's learning-compression at the papers' settings of compression, from the zoo's trained nets, with far "
    "fewer epochs than the papers'. The references differ (the papers' are trained longer, on all 60 000 or 50 000 "
    "images), so it is the *excess* that is compared: test error over that of the uncompressed net, in points, in "
    "brackets the most that it is with 95 % confidence. *Distance*: our excess less the paper's; 0 or below is "
    "reached. Test errors are of the written file, the bytes those of files, the formula's ratio is the paper's own. "
    "LeNet rows learn from the labels and the original's answers, the others from the labels. *Comparison*: Idelbayev "
    "and Carreira-Perpinan, An empirical comparison of quantization, pruning and low-rank neural network compression "
    "using the LC toolkit, IJCNN 2021. *Part V*: Carreira-Perpinan and Idelbayev, Model compression as constrained "
    "optimization, with application to neural nets, part V: combining compressions, 2021."
)

HEAD = [
    "row", "reference: ours", "the paper's", "test error: ours", "the paper's", "excess: ours", "the paper's",
    "distance", "ratio by formula: ours", "the paper's", "`model.onnx`", "`model.ecz`", "epochs: ours", "the paper's",
    "reason",
]  # fmt: skip

REACHED = "reached"


def lines(held: Json) -> list[str]:
    """Return the lines of the section."""
    parts = [INTRODUCTION]
    for key, entry in TABLES.items():
        if key == "3":
            parts += ["### Part V, table 2: biases compressed with the weights", logistic(held)]
        rows = [cells(row, held.get(row.name)) for row in ROWS if row.table == key]
        parts += [f"### {entry.title}", entry.text, table(HEAD, rows)]
    return "\n\n".join(parts).splitlines()


def excess(row: PaperRow, found: Json) -> float:
    """Return the points of error over what was compressed: the uncompressed net, or the one nested into."""
    drop = float(found["report"]["drop"])
    return drop - float(found["first"]["report"]["drop"]) if row.first else drop


def distance(row: PaperRow, found: Json) -> float:
    """Return our excess less the paper's, or less 0 where it prints none; in points."""
    paper = row.paper
    return excess(row, found) - (0.0 if paper.error is None else paper.error - paper.reference)


def reason(row: PaperRow, found: Json) -> str:
    """Return why the paper's excess is not reached, as it was found out; nothing where it is."""
    if distance(row, found) <= 0:
        return REACHED
    return REASONS.get(row.name, "not looked into")


def cells(row: PaperRow, found: Json | None) -> list[str]:
    """Return one row of a table."""
    paper = row.paper
    name = f"{row.name} ({paper.inferred})" if paper.inferred else row.name
    name += f" (from `benchmarks.lc`: {row.row.goal})" if row.adopted else ""
    if found is None:
        theirs = ["", "", f"{paper.reference:.2f} %", "", _percent(paper.error)]
        return [name, NOT_RUN, *theirs[2:]]
    report = found["report"]
    before = 100 - report["before"]
    ours = f"{report['drop']:+.2f} ({report['upper_95']:+.2f})"
    if row.first:
        ours = f"{excess(row, found):+.2f} over the low-rank net's, {ours} over the original's"
        before += found["first"]["report"]["drop"]
    theirs_excess = "0 (a figure)" if paper.error is None else f"{paper.error - paper.reference:+.2f}"
    return [
        name, f"{before:.2f} %", f"{paper.reference:.2f} %", f"{100 - report['before'] + report['drop']:.2f} %",
        _percent(paper.error), ours, theirs_excess, f"{distance(row, found):+.2f}", f"{found['formula_ratio']:.2f}x",
        "7 to 31x" if paper.ratio is None else f"{paper.ratio:.2f}x",
        f"{count(found['onnx_bytes'])}, {found['onnx_ratio']:.1f}x",
        f"{count(found['ecz_bytes'])}, {found['ecz_ratio']:.1f}x", f"{found['epochs']:g}", str(paper.epochs),
        reason(row, found),
    ]  # fmt: skip


def _percent(error: float | None) -> str:
    return "a figure" if error is None else f"{error:.2f} %"


def logistic(held: Json) -> str:
    """Return table 2: losses, accuracies and corrected biases."""
    head = [
        "model", "training loss: ours", "the paper's", "test accuracy: ours", "the paper's", "corrected biases: ours",
        "the paper's", "`model.onnx`, bytes", "`model.ecz`, bytes", "epochs: ours", "the paper's",
        "distance of the loss's excess", "reason",
    ]  # fmt: skip
    theirs = {name: [f"{loss:.4f}", f"{test:.2f} %", "" if many is None else str(many)]
              for name, (loss, test, many) in PAPER.items()}  # fmt: skip
    rows = []
    known = [held[name] for name in LOGISTIC if name in held]
    own = _between(known[0]["reference"], theirs["reference"], "") if known else [NOT_RUN]
    rows.append(
        ["reference", *own, "", "", *([str(known[0]["reference_epochs"]), str(PAPER_EPOCHS[0])] if known else [])]
    )
    for name, kappa in LOGISTIC.items():
        found = held.get(name)
        if found is None:
            rows.append([name, NOT_RUN])
            continue
        files = [count(found["onnx_bytes"]), count(found["ecz_bytes"])]
        many = f"{found['corrected']['linear.bias']} of 10"
        epochs = [str(found["epochs"]), str(PAPER_EPOCHS[1])]
        rows.append([name, *_between(found, theirs[kappa], many), *files, *epochs, *_excess(found, kappa)])
    return table(head, rows)


def _excess(found: Json, kappa: int) -> list[str]:
    """Return by how much our rise of the training loss over the reference's is above the paper's, and why."""
    ours = found["loss"] - found["reference"]["loss"]
    theirs = PAPER[kappa][0] - PAPER["reference"][0]
    if ours <= theirs:
        return [f"{ours - theirs:+.4f}", "reached"]
    return [f"{ours - theirs:+.4f}", f"{found['epochs']} epochs of {PAPER_EPOCHS[1]}; no more were tried"]


def _between(found: Json, theirs: list[str], many: str) -> list[str]:
    ours = [f"{found['loss']:.4f}", f"{found['accuracy']:.2f} %", many]
    return [cell for pair in zip(ours, theirs, strict=True) for cell in pair]
