"""A job without torch: the real process, lock and signals of web.job, with stages that only pretend."""

from __future__ import annotations

import json
import sys
import time
import types
from typing import TYPE_CHECKING, Any

from easycompress import web
from easycompress.core.errors import BadInput
from easycompress.core.files import write_text
from easycompress.core.progress import AttemptBegun, AttemptDone, EpochDone, Progress, tell
from easycompress.web import job

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.web.store import Run

METRIC = {"name": "accuracy", "percent": True, "higher_is_better": True}
LAYER = {"name": "fc", "type": "Linear", "family": "linear", "params": 90, "macs": 80}
PROFILE = {"architecture": "fnn", "layers": [LAYER], "params": 90, "macs": 80, "has_batch_norm": False,
           "input_shape": [8], "outputs": 3}  # fmt: skip
SCHEMA = {
    "properties": {
        "kind": {"const": "distillation", "type": "string"},
        "temperature": {"type": "number", "exclusiveMinimum": 0, "default": 2.0},
        "epochs": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}], "default": None},
        "mode": {"enum": ["target", "budget"], "type": "string", "default": "target"},
    }
}
EPOCHS = 1200
"""Epochs of a run whose budget is an hour: it lasts until somebody ends it."""


def look(run: Run, progress: Progress) -> dict[str, Any]:
    progress.now("reading model and data")
    if "bad" in run.given["model"]:
        raise BadInput("--mean (0.5,): the images have 3 channels, so three numbers are needed")
    if "exits" in run.given["model"]:
        raise SystemExit(3)
    return {"asked": {}, "profile": PROFILE, "metric": METRIC, "quality": 97.0, "size": 4000.0, "latency": 0.5,
            "threads": 1, "samples": {"train": 9, "calibration": 9, "select": 8, "report": 7}, "notes": []}  # fmt: skip


def make_plan(run: Run, progress: Progress) -> dict[str, Any]:
    progress.now("asking every rule")
    settings = {"kind": "distillation", "temperature": 2.0, "epochs": None, "mode": "target"}
    step = {"kind": "distillation", "settings": settings, "line": "distillation", "brief": "distillation",
            "trains": True, "schema": SCHEMA, "source": ""}  # fmt: skip
    decision = {"rule": "D1", "question": "Can anything be trained?", "answer": "yes", "evidence": "9 samples"}
    return {"rows": [["size", f"{run.goal['target']} smaller", "4 000 -> 400 bytes"], ["train", "", "9 samples"]],
            "reached": False, "decisions": [decision], "steps": [step, step], "quick": [],
            "lesser": [], "last": ["entropy-quantization"], "notes": ["a note"]}  # fmt: skip


def carry_out(run: Run, place: Path, progress: Progress) -> dict[str, Any]:
    out = place / "out"
    journal = out / "journal" / "epochs"
    journal.parent.mkdir(parents=True, exist_ok=True)
    done = int(journal.read_text()) if journal.exists() else 0
    last = EPOCHS if run.goal.get("budget") == "1h" else 3
    if done:
        progress.say(f"resumed after epoch {done}")
    if run.goal["target"] == "7x":
        raise BadInput("out of everything; free something")
    tell(progress, AttemptBegun(number=1, what="distillation", epochs=last))
    for epoch in range(done + 1, last + 1):
        tell(
            progress,
            EpochDone(
                label="distillation",
                epoch=epoch,
                epochs=last,
                seconds=0.05,
                loss=float("nan") if epoch == 1 else 1 / epoch,
                quality=90.0 + epoch % 7,
            ),
        )
        write_text(journal, str(epoch))  # whole, whenever a stop comes
        time.sleep(0.05)
    done_well = AttemptDone(number=1, what="distillation", objective=400.0, ratio=10.0, quality=96.5, drop=0.5,
                            error=0.2, accepted=True, reason="within the floor", epochs=last, seconds=0.2)  # fmt: skip
    tell(progress, done_well)
    write_result(out, run.goal)
    return {"code": 0, "verdict": "met", "line": "MET: ten times smaller"}


def write_result(out: Path, goal: dict[str, Any]) -> None:
    measured = {"quality": 97.0, "size_bytes": 4000, "params": 90, "macs": 80, "energy_mj": {"value": 1.0},
                "latency_ms": [{"batch": 1, "median": 0.5}]}  # fmt: skip
    drop = {"estimate": 0.5, "upper_95": 0.9, "n": 7, "worse": 1, "better": 0, "certified": True}
    report = {"request": {"objective": "size", **goal}, "profile": {"metric": METRIC}, "verdict": "met", "ratio": 10.0,
              "summary": "MET: 10.0x smaller (4 000 -> 400 bytes)", "drop": drop, "target_met": True, "drop_met": True,
              "baseline": measured, "final": {**measured, "quality": 96.5, "size_bytes": 400}, "steps": []}  # fmt: skip
    (out / "report.json").write_text(json.dumps(report))
    (out / "report.html").write_text("<!doctype html><title>report</title><p>The report")
    (out / "model.onnx").write_bytes(b"onnx" * 100)


def main() -> None:
    stages = types.ModuleType("easycompress.web.stages")
    stages.look, stages.make_plan, stages.carry_out = look, make_plan, carry_out  # type: ignore[attr-defined]
    web.stages = stages  # type: ignore[attr-defined]
    sys.modules["easycompress.web.stages"] = stages
    job.run()


if __name__ == "__main__":
    main()
