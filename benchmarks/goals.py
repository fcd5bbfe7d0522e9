"""Goals for the trained models, each carried out by the product as a user would: what was reached, in one table.

`python -m benchmarks.goals --zoo ZOO --data DATA [--rows NAME ...] [--again] [--only-print]`. Every row is one
`compress()`; its report's numbers are the written file's on the report split. Resumable: a row that the JSON holds is
not run again, an interrupted one goes on in its folder.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.zoo import add_folders, load_task, locate
from easycompress import compress
from easycompress.artifact.onnx_export import export
from easycompress.artifact.slim import slim
from easycompress.core.progress import Silent
from easycompress.measure.latency import time_files

RESULTS = Path(__file__).parent / "results" / "goals.json"

OUT = Path("out/goals")

CROPPED = {"augment": "flip-crop"}

PRUNE = {"kind": "structured-pruning"}
TEACH = {"kind": "distillation", "technique": "combined", "mode": "budget"}
INT8 = {"kind": "static-int8"}


@dataclass(frozen=True)
class Row:
    """One goal. `recipe` are the steps to carry out in place of the plan's, `goal` says what must be reached."""

    name: str
    model: str
    flags: dict[str, Any]
    goal: str
    recipe: tuple[dict[str, Any], ...] = ()
    batches: tuple[int, ...] = ()
    """Batch sizes at which the written file is timed once more, beside the plain one."""


def _alone(name: str, *steps: dict[str, Any], size: str = "10x", budget: str = "20ep") -> Row:
    flags = {"objective": "size", "target": size, "max_drop": "99%", "budget": budget}
    return Row(f"lenet5 {size} by {name}", "lenet5", flags, "measured, whatever it shows", steps)


ROWS = (
    Row(
        "resnet20 half the operations", "resnet20",
        # the first attempt takes 12 of them, 0.6 of the budget; another would begin only where it missed the floor
        {"objective": "compute", "target": "2x", "max_drop": "1%", "budget": "20ep", **CROPPED},
        "2x MACs by structured pruning and distillation in at most 12 epochs, drop at most 0.5",
        ({**PRUNE, "importance": "group-norm", "ratios": "sensitivity", "saves": "macs", "steps": 1},
         TEACH),
    ),
    Row(
        "resnet20 latency", "resnet20",
        {"objective": "latency", "target": "3x", "max_drop": "1%", "budget": "60min", **CROPPED},
        "3x at batch 1 and 64 within 1 point", batches=(1, 64),
    ),
    Row(
        "lenet5 a quarter of the operations", "lenet5",
        {"objective": "compute", "target": "4x", "max_drop": "0.3%", "budget": "12ep"}, "4x MACs, drop at most 0.3",
    ),
    Row(
        "minilm size", "minilm", {"objective": "size", "target": "4x", "max_drop": "1%", "budget": "none"},
        "4x smaller within 1 point",
    ),
    Row(
        "minilm latency", "minilm", {"objective": "latency", "target": "2x", "max_drop": "1%", "budget": "none"},
        "2x faster within 1 point",
    ),
    _alone("pruning", PRUNE),
    _alone("pruning and distillation", PRUNE, TEACH),
    _alone("pruning and int8", PRUNE, INT8),
    _alone("pruning, distillation and int8", PRUNE, TEACH, INT8),
    _alone("int8", INT8, size="3.8x"),
    _alone("pruning", PRUNE, size="3.8x"),
    _alone("pruning and distillation", PRUNE, TEACH, size="3.8x"),
)  # fmt: skip
"""Every row, in the order of the table."""


def minilm(options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Return the sentence classifier of the zoo and its data, 64 tokens a sentence."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: PLC0415 - an optional package

    folder = options.zoo / "minilm_sst2"
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def split(name: str) -> tuple[dict[str, Any], Any]:
        lines = (options.data / "sst2" / f"{name}.tsv").read_text().splitlines()
        rows = [line.rsplit("\t", 1) for line in lines if line]
        texts = [text for text, _ in rows]
        tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=64, return_tensors="pt")
        return dict(tokens), torch.tensor([int(label) for _, label in rows])

    model = AutoModelForSequenceClassification.from_pretrained(folder).float().eval()
    return model, {name: split(file) for name, file in (("train", "train"), ("validation", "dev"), ("test", "test"))}


def carry_out(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """Run one row and return what its report says."""
    out = OUT / row.name.replace(" ", "-").replace(",", "")
    model, flags = minilm(options) if row.model == "minilm" else locate(row.model, options)
    flags = flags | row.flags
    if row.recipe:
        OUT.mkdir(parents=True, exist_ok=True)
        recipe = OUT.resolve() / f"{out.name}.yaml"
        recipe.write_text(yaml.safe_dump({"steps": [dict(step) for step in row.recipe]}))
        flags["recipe"] = str(recipe)
    begin = time.perf_counter()
    result = compress(model, out=out, resume=out.exists(), progress=Silent(), **flags)
    report = result.report
    found = {
        "goal": row.goal, "model": row.model, "flags": dict(row.flags),
        "seconds": round(time.perf_counter() - begin, 1), "verdict": report.verdict, "ratio": report.ratio,
        "quality": [report.baseline.quality, report.final.quality], "drop": report.drop.estimate,
        "upper_95": report.drop.upper_95, "size_ratio": report.baseline.size_bytes / report.final.size_bytes,
        "compute_ratio": report.baseline.macs / report.final.macs, "summary": report.summary,
        "epochs": sum(step.epochs for step in report.steps),
        "kept": [step.action for step in report.steps if step.verdict == "kept"],
    }  # fmt: skip
    found["latency_ratios"] = {
        str(b.batch): b.median / a.median
        for b, a in zip(report.baseline.latency_ms, report.final.latency_ms, strict=True)
    }
    if row.batches:
        found["latency_ratios"] = timed(row, out, options)
    return found


def timed(row: Row, out: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return how many times faster the written file is than the plain one, at each of the row's batches."""
    task = load_task(row.model, options)
    plain = OUT / f"{row.model}-plain.onnx"
    plain.write_bytes(slim(export(task.model, task.example)).SerializeToString())
    found = {}
    for batch in row.batches:
        before, after = time_files([plain, out / "model.onnx"], task.example, batch, torch.get_num_threads())
        found[str(batch)] = before.median / after.median
    return found


def line(name: str, row: dict[str, Any]) -> str:
    """Return one row for people."""
    times = ", ".join(f"{ratio:.2f}x at batch {batch}" for batch, ratio in row["latency_ratios"].items())
    return (
        f"{name}: {row['verdict']}, drop {row['drop']:.2f} (at most {row['upper_95']:.2f}); {row['size_ratio']:.2f}x "
        f"smaller, {row['compute_ratio']:.2f}x fewer operations, {times}; {row['epochs']} epochs, "
        f"{row['seconds']:.0f} s; {' + '.join(row['kept'])} | {row['goal']}"
    )


def main() -> None:
    """Run what the JSON doesn't hold yet and print every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_folders(parser)
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS], metavar="NAME")
    parser.add_argument("--again", action="store_true", help="run rows that the JSON already holds")
    parser.add_argument("--only-print", action="store_true")
    options = parser.parse_args()
    held: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for row in ROWS:
        wanted = not options.only_print and row.name in (options.rows or [r.name for r in ROWS])
        if wanted and (options.again or row.name not in held):
            held[row.name] = carry_out(row, options)
            RESULTS.write_text(json.dumps(held, indent=1) + "\n")
        if row.name in held:
            print(line(row.name, held[row.name]), flush=True)


if __name__ == "__main__":
    main()
