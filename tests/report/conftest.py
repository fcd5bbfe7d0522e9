"""A sample report, as a run on a small CNN would leave it."""

from __future__ import annotations

import pytest

from easycompress.core.goal import Goal, parse_budget, parse_floor, parse_target
from easycompress.core.outcome import (
    Artifact,
    Changes,
    Course,
    CurvePoint,
    Drop,
    Energy,
    Latency,
    LayerChange,
    LayerState,
    Measurement,
    Report,
    StepRecord,
)
from easycompress.core.plan import Decision
from easycompress.core.profile import LayerProfile, ModelProfile
from easycompress.core.request import Request
from easycompress.metrics import METRICS
from easycompress.report.brief import Brief
from easycompress.report.sentence import sentence

NASTY = "models/<script>alert(1)</script>/lenet5.pt2"
"""A model path that a page must not run."""

ACCURACY = {"name": "accuracy", "percent": True, "higher_is_better": True}
"""What a report's profile says of its metric."""

SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


@pytest.fixture
def profile() -> ModelProfile:
    return ModelProfile(
        architecture="cnn",
        layers=(
            LayerProfile(name="conv1", type="Conv2d", family="convolutional", params=520, macs=288_000),
            LayerProfile(name="conv2", type="Conv2d", family="convolutional", params=25_050, macs=1_600_000),
            LayerProfile(name="fc1", type="Linear", family="linear", params=400_500, macs=400_000),
            LayerProfile(name="fc2", type="Linear", family="linear", params=5_010, macs=5_000),
        ),
        params=431_080,
        macs=2_293_000,
        has_batch_norm=False,
        input_shape=(1, 28, 28),
        outputs=10,
    )


@pytest.fixture
def brief() -> Brief:
    return Brief(
        request=Request(model="m.pt", target="10x", max_drop="1%"),
        goal=Goal(
            objective="size",
            target=parse_target("10x", "size"),
            floor=parse_floor("1%", None, percent_metric=True, metric="accuracy"),
        ),
        metric=METRICS["accuracy"],
        budget=parse_budget("20min"),
        quality=99.14,
        value=1_725_832.0,
        allowed=1.0,
        needed=10.0,
        epochs=31.4,
        threads=2,
        samples={"train": 50_000, "calibration": 1024, "select": 5000, "report": 10_000},
        notes=("select is the validation split (5000 samples), report is the test split (10000)",),
    )


@pytest.fixture
def decisions() -> tuple[Decision, ...]:
    return (
        Decision(
            rule="S1",
            question="Does the objective count bytes on disk?",
            answer="yes",
            evidence="objective size, target 10x of 1 725 832 bytes",
        ),
        Decision(
            rule="P1",
            question="Which family holds most of the parameters?",
            answer="linear",
            evidence="linear 94.1 % of 431 080 parameters, convolutional 5.9 %; threshold 60 % (thesis, section 4.2.1)",
        ),
        Decision(
            rule="Q2",
            question="Do 8-bit weights alone reach the target?",
            answer="no",
            evidence="int8 divides by at most 4, and 10x is asked; structured pruning has to give the other 2.5x",
        ),
        Decision(
            rule="D1",
            question="Is there enough labelled data to train on?",
            answer="yes, soft and hard labels combined",
            evidence="55 000 labelled training samples for 10 classes; threshold 500 a class",
        ),
    )


def step(
    action: str, settings: dict[str, object], after: tuple[float, float, float] | None, verdict: str, reason: str
) -> StepRecord:
    """`after` is (bytes, quality, ratio)."""
    objective, quality, ratio = after or (None, None, None)
    return StepRecord.model_validate(
        {
            "action": action,
            "settings": {"kind": action, **settings},
            "before": {"objective": 1_725_832.0, "quality": 99.14, "ratio": 1.0},
            "after": {"objective": objective, "quality": quality, "ratio": ratio},
            "verdict": verdict,
            "seconds": 41.7 if after else 0.0,
            "epochs": 3 if after else 0,
            "reason": reason,
        }
    )


@pytest.fixture
def steps() -> tuple[StepRecord, ...]:
    pruning = {"strategy": "global", "importance": "l1", "round_to": 1, "steps": 3}
    return (
        step(
            "structured-pruning",
            {**pruning, "strength": 0.75},
            (119_020.0, 97.61, 14.5),
            "weakened",
            "drop 1.53 + 0.16 points is beyond the floor of 1.00",
        ),
        step(
            "structured-pruning",
            {**pruning, "strength": 0.45},
            (548_730.0, 99.08, 3.145),
            "kept",
            "within the floor",
        ),
        step(
            "static-int8",
            {"calibration": "minmax", "samples": 512, "reduce_range": False},
            (167_552.0, 99.02, 10.3),
            "kept",
            "reaches the target",
        ),
        step(
            "static-int8",
            {"calibration": "entropy", "samples": 512, "reduce_range": True},
            (160_100.0, 93.2, 10.78),
            "reverted",
            "drop 5.94 points is beyond the floor of 1.00",
        ),
        step("low-rank", {"strength": None}, None, "skipped", "the target is reached: nothing compresses further"),
    )


@pytest.fixture
def report(profile: ModelProfile, decisions: tuple[Decision, ...], steps: tuple[StepRecord, ...]) -> Report:
    request = Request(model=NASTY, data="mnist", target="10x", max_drop="1%", out="out")
    baseline = Measurement(
        quality=99.18,
        size_bytes=1_725_832,
        params=431_080,
        macs=2_293_000,
        latency_ms=(
            Latency(batch=1, median=0.0581, iqr=0.0021, threads=2, runs=60),
            Latency(batch=64, median=5.61, iqr=0.12, threads=2, runs=60),
        ),
        energy_mj=Energy(value=1.43, source="estimated"),
    )
    final = Measurement(
        quality=99.06,
        size_bytes=167_552,
        params=136_640,
        macs=1_110_200,
        latency_ms=(
            Latency(batch=1, median=0.0322, iqr=0.0018, threads=2, runs=60),
            Latency(batch=64, median=1.18, iqr=0.07, threads=2, runs=60),
        ),
        energy_mj=Energy(value=0.79, source="estimated"),
    )
    drop = Drop(estimate=0.12, upper_95=0.35, n=5000, worse=14, better=8, certified=True)
    ratio = baseline.size_bytes / final.size_bytes
    summary = sentence(
        objective="size",
        target=parse_target("10x", "size"),
        before=baseline.size_bytes,
        after=final.size_bytes,
        ratio=ratio,
        drop=drop,
        allowed=1.0,
        verdict="met",
        percent=True,
    )
    return Report(
        request=request.model_dump(),
        environment={
            "easycompress": "0.1.0",
            "python": "3.11.2",
            "torch": "2.14.1",
            "onnxruntime": "1.31.1",
            "processor": "Intel Xeon, 2 physical cores, avx512_vnni",
            "system": "Linux-6.1-x86_64",
            "seconds": 214.3,
        },
        profile=profile.model_dump() | {"metric": ACCURACY},
        decisions=tuple(decision.model_dump() for decision in decisions),
        plan={
            "steps": [
                {"kind": "structured-pruning", "strategy": "global", "importance": "l1", "strength": None},
                {"kind": "static-int8", "calibration": "minmax", "samples": 512},
            ],
            "notes": [
                "The 10 000 test samples were divided in two: 5 000 chose the settings, 5 000 judged the result.",
                "Augmentation is off; for natural images --augment flip-crop often recovers more.",
            ],
        },
        steps=steps,
        baseline=baseline,
        final=final,
        ratio=ratio,
        drop=drop,
        target_met=True,
        drop_met=True,
        verdict="met",
        summary=summary,
        artifacts=(
            Artifact(path="model.onnx", bytes=167_552, sha256=SHA256),
            Artifact(path="model.safetensors", bytes=139_204, sha256=SHA256),
            Artifact(path="record.json", bytes=2_841, sha256=SHA256),
            Artifact(path="predictions.npz", bytes=81_320, sha256=SHA256),
        ),
    )


LAYERS = (
    # name, type, outputs before and after, rank after, bytes before and after, MACs before and after
    ("conv1", "Conv2d", 20, 20, None, 2080, 560, 288_000, 288_000),
    ("conv2", "Conv2d", 50, 24, None, 100_200, 12_900, 1_600_000, 768_000),
    ("fc1", "Linear", 500, 500, 24, 1_602_000, 98_300, 400_000, 54_000),
    ("fc2", "Linear", 10, None, None, 20_040, 0, 5_000, 0),
)


@pytest.fixture
def full_report(report: Report) -> Report:
    """The sample with everything that can be drawn: trees as they were walked, layers, course, curves, quantiles."""
    layers = [
        LayerChange(
            name=name,
            type=kind,
            before=LayerState(
                outputs=wide, rank=None, params=old // 4, macs=macs, bytes=old, bits=32.0, form="float32"
            ),
            after=None
            if slim is None
            else LayerState(outputs=slim, rank=rank, params=new, macs=fewer, bytes=new, bits=8.1, form="affine int8"),
        )
        for name, kind, wide, slim, rank, old, new, macs, fewer in LAYERS
    ]
    course = (
        Course(action="original", size_bytes=1_725_832, latency=0.0581),
        Course(action="structured-pruning", size_bytes=548_730, latency=0.0402),
        Course(action="static-int8", size_bytes=167_552, latency=0.0322),
    )
    steps = [
        each.model_copy(update={"after": each.after | {"error": 0.16}}) if index in (0, 3) else each
        for index, each in enumerate(report.steps)
    ]
    steps[0] = steps[0].model_copy(update={"curve": lc_curve(6, 2)})
    steps[1] = steps[1].model_copy(update={"curve": lc_curve(0, 3)})

    def timed(entries: tuple[Latency, ...]) -> tuple[Latency, ...]:
        return tuple(
            each.model_copy(update={"quantiles": (*(each.median * (0.9 + 0.01 * i) for i in range(20)), 9.0)})
            for each in entries
        )

    return report.model_copy(
        update={
            "steps": tuple(steps),
            "decisions": WALKED,
            "baseline": report.baseline.model_copy(update={"latency_ms": timed(report.baseline.latency_ms)}),
            "final": report.final.model_copy(update={"latency_ms": timed(report.final.latency_ms)}),
            "profile": report.profile
            | {"changes": Changes(layers=tuple(layers), course=course).model_dump(mode="json")},
        }
    )


def lc_curve(steps: int, epochs: int) -> tuple[CurvePoint, ...]:
    """So many L steps, quality at every second, and so many epochs of fine-tuning."""
    learned = [
        CurvePoint(
            part="L step",
            epoch=index + 1,
            loss=0.3 / (index + 1),
            quality=98.0 + 0.1 * index if index % 2 == 0 else None,
            distance=3.2 / 2**index,
            mu=1e-3 * 2**index,
        )
        for index in range(steps)
    ]
    tuned = [
        CurvePoint(part="fine-tuning", epoch=index + 1, loss=0.02 - 0.001 * index, quality=98.9 + 0.05 * index)
        for index in range(epochs)
    ]
    return (*learned, *tuned)


WALKED = tuple(
    {"rule": rule, "question": "as it was asked", "answer": answer, "evidence": f"evidence of {rule}"}
    for rule, answer in (
        ("L1", "yes"), ("L2", "no"), ("L4", "yes"),
        ("Q1", "no"), ("Q2", "cpu"), ("Q4", "yes"), ("Q5", "no"), ("Q6", "yes"), ("Q10", "neither"), ("Q8", "no"),
        ("Q9", "yes"),
        ("S1", "yes"), ("S2", "time or operations"), ("S4", "convolutional"), ("S5", "yes"),
    )
)  # fmt: skip
"""Answers as three trees got them: in the second the rules Q6 and Q8, in the third S5 are asked in several places."""
