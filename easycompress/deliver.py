"""The end of a run: the chosen file is measured once on *report*, beside the original, and everything is written."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import onnx
import yaml
from safetensors.torch import save

from easycompress.artifact.also import write_also
from easycompress.artifact.container import write_ecz
from easycompress.artifact.external import copy_graph
from easycompress.artifact.large import copied, named_graph, write_large, write_state
from easycompress.artifact.pretrained import is_pretrained, save_pretrained
from easycompress.artifact.write import PACKED
from easycompress.changes import changes
from easycompress.core.files import copy_file, sha256, write_bytes, write_json, write_text
from easycompress.core.inputs import names_of, parts
from easycompress.core.ledger import by_kind, spending
from easycompress.core.outcome import Artifact, Drop, Measurement, Report, decide
from easycompress.executor.replay import load, record_json
from easycompress.measure.environment import environment
from easycompress.measure.files import measure_large, measure_pair
from easycompress.measure.runtime import Runtime
from easycompress.measure.statistics import paired_drop, within
from easycompress.predictions import write_predictions
from easycompress.report.html import render
from easycompress.report.reading import disturbed_words, value_of
from easycompress.report.sentence import sentence

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.outcome import Repeats
    from easycompress.core.plan import Plan
    from easycompress.core.request import Request
    from easycompress.executor.executed import Executed
    from easycompress.executor.journal import Journal
    from easycompress.prepare import Prepared

PRETRAINED = "pretrained"
"""Folder of OUT that `from_pretrained` of a model's own library reads."""


@spending("report")
def deliver(
    prepared: Prepared,
    request: Request,
    plan: Plan,
    executed: Executed,
    journal: Journal,
    out: Path,
    repeats: Repeats | None = None,
) -> Report:
    """Write the files of OUT, measure them, and return the report. The journal is marked finished last."""
    _place(prepared, executed, journal, out)
    task = prepared.task
    plan = _save_pretrained(prepared, plan, out)
    note = write_also(
        request.also, request.model, lambda: load(out, lambda: copied(task.model)), task.model, task.example, out
    )
    plan = plan.model_copy(update={"notes": (*plan.notes, note)}) if note else plan
    final = out / "model.onnx"
    judged = [
        prepared.original.judged(task.data.report, task.metric),
        Runtime(final, prepared.threads).judged(task.data.report, task.metric),
    ]
    scores = [each for each, _ in judged]
    qualities = (task.metric.quality(scores[0]), task.metric.quality(scores[1]))
    allowed = prepared.goal.floor.allowed_drop(qualities[0], higher_is_better=task.metric.higher_is_better)
    drop = paired_drop(scores[0], scores[1], task.metric, allowed)
    before, after = _measured(prepared, request, final, qualities)
    write_predictions(out, task, [answers for _, answers in judged], scores)
    _write_recipe(out, request, executed, request.seed if repeats is None else repeats.delivered)
    report = _judge(prepared, request, plan, executed, drop, allowed, before, after, journal)
    found = changes(prepared, executed, journal, out, (before, after))
    facts = report.profile | {"changes": found.model_dump(mode="json")}
    times = {"seconds": round(journal.elapsed(), 1), "spent": by_kind(journal.spent(), journal.elapsed())}
    report = report.model_copy(
        update={
            "environment": report.environment | times,
            "profile": facts,
            "artifacts": _artifacts(out),
            "repeats": repeats,
            "tuning": executed.tuning,
        }
    )
    write_text(out / "report.html", render(report))
    report = report.model_copy(update={"artifacts": _artifacts(out)})
    write_json(out / "report.json", report.to_json())
    journal.finish()
    return report


def _measured(
    prepared: Prepared, request: Request, final: Path, qualities: tuple[float, float]
) -> tuple[Measurement, Measurement]:
    """Measure the original and the final file; `qualities` are theirs on *report*."""
    task = prepared.task
    if prepared.described is not None:
        graph = named_graph(task.model, task.example)
        return measure_large(graph, prepared.baseline, prepared.described, final, qualities)
    batches = tuple(dict.fromkeys((1, request.batch)))
    counted = final.with_suffix(PACKED) if prepared.goal.format == "packed" else final
    return measure_pair(
        prepared.baseline, final, counted, qualities, task.example, batches, prepared.threads, prepared.meter
    )


def _judge(
    prepared: Prepared,
    request: Request,
    plan: Plan,
    executed: Executed,
    drop: Drop,
    allowed: float,
    before: Measurement,
    after: Measurement,
    journal: Journal,
) -> Report:
    goal, metric = prepared.goal, prepared.task.metric
    values = [value_of(m, goal.objective, request.batch) for m in (before, after)]
    ratio = values[0] / values[1] if executed.best is not None else 1.0
    target_met = ratio > 1 if goal.target.kind == "max" else bool(ratio >= goal.target.ratio(values[0]) * (1 - 1e-12))
    if goal.target.kind == "absolute":
        target_met = values[1] <= goal.target.value
    drop_met = within(drop.estimate, allowed)
    certified = drop.certified or (executed.best is None and target_met)  # nothing changed, nothing to certify
    verdict = decide(target_met=target_met, drop_met=drop_met, certify=request.certify, certified=certified)
    if prepared.task.blind:
        verdict = "undecided"  # random inputs prove nothing
    reasons = [executed.why if verdict == "target-missed" or not target_met else ""]
    reasons += [disturbed_words(after.latency_ms) if goal.objective == "latency" else ""]
    summary = sentence(
        objective=goal.objective,
        target=goal.target,
        before=values[0],
        after=values[1] if executed.best is not None else values[0],
        ratio=ratio,
        drop=drop,
        allowed=allowed,
        verdict=verdict,
        percent=metric.percent,
        estimated=goal.objective == "energy" and after.energy_mj.source == "estimated",
        why="; ".join(reason for reason in reasons if reason) or None,
    )
    return Report(
        request=request.model_dump(mode="json"),
        environment=environment(prepared.threads) | _inputs(journal),
        profile=_facts(prepared),
        decisions=tuple(decision.model_dump() for decision in plan.decisions),
        plan={
            "quick": [step.model_dump(mode="json") for step in plan.quick],
            "steps": [step.model_dump(mode="json") for step in plan.steps],
            "lesser": [step.model_dump(mode="json") for step in plan.lesser],
            "last": [step.model_dump(mode="json") for step in plan.last],
            "notes": [prepared.task.data.note, *prepared.task.notes, *plan.notes],
        },
        steps=executed.steps,
        baseline=before,
        final=after,
        ratio=ratio,
        drop=drop,
        target_met=target_met,
        drop_met=drop_met,
        verdict=verdict,
        summary=summary,
        artifacts=(),
    )


def _inputs(journal: Journal) -> dict[str, Any]:
    """Return the SHA-256 of the original's ONNX file and of each split of the data."""
    begun = journal.data["fingerprint"]
    return {"inputs": {"model": begun["model"], **begun["data"]}}


def _facts(prepared: Prepared) -> dict[str, Any]:
    """Return the profile, with what a reader of the report must know of the model's input and of the metric."""
    task = prepared.task
    inputs = [
        {"name": name, "shape": list(tensor.shape[1:]), "dtype": str(tensor.dtype).removeprefix("torch.")}
        for name, tensor in zip(names_of(task.model, task.example), parts(task.example), strict=True)
    ]
    return prepared.profile.model_dump(mode="json") | {
        "input_name": inputs[0]["name"],
        "input_dtype": inputs[0]["dtype"],
        "inputs": inputs,
        "checkpoint_bytes": task.checkpoint_bytes,
        "metric": {
            "name": task.metric.name,
            "percent": task.metric.percent,
            "higher_is_better": task.metric.higher_is_better,
        },
    }


def _place(prepared: Prepared, executed: Executed, journal: Journal, out: Path) -> None:
    """Put the chosen model's files into OUT; the original's where nothing was accepted."""
    example = prepared.task.example
    best = executed.best
    if best is None and prepared.described is not None:
        write_large(prepared.task.model, example, out / "model.onnx", apart=True)
        write_state(prepared.task.model, out / "model.safetensors")
        write_json(out / "record.json", record_json((), {}, example))
        return
    if best is None:
        copy_file(prepared.baseline, out / "model.onnx")
        state = prepared.task.model.state_dict()
        write_bytes(out / "model.safetensors", save({n: t.contiguous().clone() for n, t in state.items()}))
        write_json(out / "record.json", record_json((), {}, example))
        if prepared.goal.format == "packed":
            write_ecz(out / f"model{PACKED}", onnx.load(str(prepared.baseline)), {})
        return
    copy_graph(journal.path(f"{best.tag}.onnx"), out / "model.onnx")
    for suffix in (PACKED, ".safetensors"):
        made = journal.path(f"{best.tag}{suffix}")
        if made.exists():
            copy_file(made, out / f"model{suffix}")
    write_json(out / "record.json", record_json(best.records, best.codes, example))


def _save_pretrained(prepared: Prepared, plan: Plan, out: Path) -> Plan:
    """Write the folder that a pretrained model's own library loads; return the plan with a note where that can't be."""
    task = prepared.task
    if not any(is_pretrained(module) for module in task.model.modules()):
        return plan
    if prepared.described is not None:
        note = f"no {PRETRAINED} folder: its own library has no blocks; load it from model.safetensors and record.json"
        return plan.model_copy(update={"notes": (*plan.notes, note)})
    folder = out / PRETRAINED
    if folder.exists():  # of a run that was killed while it wrote the last files
        shutil.rmtree(folder)
    saved = save_pretrained(load(out, lambda: copied(task.model)), folder, task.example)
    if saved:
        return plan
    note = f"no {PRETRAINED} folder: {saved.reason}; load it from model.safetensors and record.json"
    return plan.model_copy(update={"notes": (*plan.notes, note)})


def _write_recipe(out: Path, request: Request, executed: Executed, seed: int) -> None:
    best = executed.best
    recipe = {
        "schema": "easycompress-recipe/1",
        "objective": request.objective,
        "target": request.target,
        "max_drop": request.max_drop,
        "min_quality": request.min_quality,
        "seed": seed,
        "split_seed": None if request.drawn_by == seed else request.drawn_by,
        "steps": [dict(action) for action in best.actions] if best is not None else [],
    }
    recipe = {key: value for key, value in recipe.items() if value is not None}
    write_text(out / "recipe.yaml", yaml.safe_dump(recipe, sort_keys=False))


def _artifacts(out: Path) -> tuple[Artifact, ...]:
    names = (
        "model.onnx",
        "model.onnx.data",
        "model.ecz",
        "model.pt2",
        "model.safetensors",
        "record.json",
        "recipe.yaml",
        "predictions.npz",
        "report.html",
    )
    paths = [out / name for name in names if (out / name).exists()]
    paths += sorted(path for path in (out / PRETRAINED).glob("*") if path.is_file())
    return tuple(Artifact(path=p.relative_to(out).as_posix(), bytes=p.stat().st_size, sha256=sha256(p)) for p in paths)
