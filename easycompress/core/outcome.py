"""What came out: measurements, the paired drop, steps, the report, the verdict and its exit code."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from easycompress.core.goal import Frozen

Verdict = Literal["met", "target-missed", "floor-missed", "undecided"]

SCHEMA = "easycompress-report/1"

EXTRAS = ("repeats", "tuning")
"""Keys of a report that only some runs have."""


def _without(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the JSON form without a list that is empty."""
    return {key: value for key, value in data.items() if key != name or value}


class Latency(Frozen):
    """Latency of one batch in ONNX Runtime: median and interquartile range in ms, over `runs` timed runs.

    `quantiles` of all of them, slow ones too, in ms at equal steps from the fastest (first) to the slowest (last);
    empty where nobody kept them. `taken` is how many cores other processes took from the threads meanwhile, on average;
    None where the system doesn't tell.
    """

    batch: int
    median: float
    iqr: float
    threads: int
    runs: int
    taken: float | None = None
    quantiles: tuple[float, ...] = ()

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data = _without(handler(self), "quantiles")
        return {key: value for key, value in data.items() if key != "taken" or value is not None}


class Energy(Frozen):
    """Energy of one inference in mJ, and where the number comes from."""

    value: float
    source: Literal["measured", "estimated"]


class Measurement(Frozen):
    """Numbers about one written file. `quality` in the metric's unit, `macs` per sample, `size_bytes` on disk."""

    quality: float
    size_bytes: int
    params: int
    macs: int
    latency_ms: tuple[Latency, ...]
    energy_mj: Energy


class Drop(Frozen):
    """The paired drop in the metric's unit, positive = worse.

    `worse` and `better` count the samples that changed for the worse and for the better. `upper_95` is the one-sided
    95 % upper bound, None when there are too few changed samples for one. `certified` is True when the bound meets the
    floor. `needed` is the number of samples at which it would at these flip rates, None when no number helps.
    """

    estimate: float
    upper_95: float | None
    n: int
    worse: int
    better: int
    certified: bool
    needed: int | None = None


class CurvePoint(Frozen):
    """One epoch of training (or one L step of learning-compression): what was seen at its end.

    `epoch` counts from 1 within its part, `part` says what trained (`distillation`, `L step`, `fine-tuning`). `loss` is
    the epoch's mean, `quality` that of the model in training on *select* in the metric's unit, `distance` the norm
    of w - delta(theta) at penalty `mu`; None: not known or not there.
    """

    part: str
    epoch: int
    loss: float | None = None
    quality: float | None = None
    distance: float | None = None
    mu: float | None = None


class StepRecord(Frozen):
    """One thing that was tried. `before` and `after` hold `objective`, `ratio` `quality` (on *select*), if known.

    `after` of an attempt's last action also has `error`, the standard error of its drop. `curve` is how training went.

    kept: it is in the result. surpassed: accepted, and a later one went further. weakened: it broke the floor, and a
    weaker setting was tried. reverted: it broke the floor. skipped: not needed.
    """

    action: str
    settings: dict[str, Any]
    before: dict[str, float | None]
    after: dict[str, float | None]
    verdict: Literal["kept", "surpassed", "weakened", "reverted", "skipped"]
    seconds: float
    epochs: int
    reason: str
    curve: tuple[CurvePoint, ...] = ()

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(handler(self), "curve")


class Trial(Frozen):
    """One setting of the trained steps that `--search` tried, by `kind.setting`. The first one has the plan's own.

    `curve` and `quality` are on *select* in the metric's unit, in PyTorch, before anything that comes after training:
    as training went, and in the end. `gain` over the first trial, positive = better, has the standard error `error`.
    `strength` is where an untrained file of these settings is as small or as quick as the first trial's.

    ended: it was worse than the median of the others half way. failed: it couldn't be carried out, see `reason`.
    """

    values: dict[str, float | int | str]
    state: Literal["finished", "ended", "failed"]
    quality: float | None = None
    gain: float | None = None
    error: float | None = None
    strength: float = 0.0
    epochs: int = 0
    seconds: float = 0.0
    curve: tuple[float | None, ...] = ()
    reason: str = ""


class Tuning(Frozen):
    """What `--search` came to: trials of at most `epochs` epochs each, which was the `best`, and whether it is `used`.

    It is where it gained more than its standard error; else the plan's own settings stay. `seconds` and `spent` epochs
    are those of all trials. `best` is None where no trial was finished.
    """

    asked: str
    epochs: int
    trials: tuple[Trial, ...]
    best: int | None
    used: bool
    seconds: float
    spent: int


class LayerState(Frozen):
    """One layer in one file: outputs (channels, neurons), `rank` of a factored one, weights, operations, and storage.

    `params` counts the numbers of its dense tensors, `macs` are per sample, `bytes` those of its tensors in the counted
    file, `bits` that many times 8 over `params`, `form` how its weight is stored.
    """

    outputs: int | None
    rank: int | None
    params: int
    macs: int
    bytes: int
    bits: float
    form: str


class LayerChange(Frozen):
    """One layer before and after; `after` is None where the layer is gone."""

    name: str
    type: str
    before: LayerState
    after: LayerState | None


class Course(Frozen):
    """What the model was after one kept action, as a written file: bytes and latency (ms, batch 1).

    The first one is the original, under `original`. `latency` is None where it wasn't measured.
    """

    action: str
    size_bytes: int
    latency: float | None


class Changes(Frozen):
    """What became of the model, layer by layer and action by action: the key `changes` of a report's profile."""

    layers: tuple[LayerChange, ...] = ()
    course: tuple[Course, ...] = ()


class Repeat(Frozen):
    """What one seed came to on *select*: ratio, quality and drop of its file, None where nothing was accepted."""

    seed: int
    ratio: float | None
    quality: float | None
    drop: float | None
    target_met: bool


class Spread(Frozen):
    """How far values lie apart; `deviation` is the sample's standard deviation, 0 of a single value."""

    mean: float
    deviation: float
    least: float
    most: float


class Repeats(Frozen):
    """Every seed's result on *select*, which of them was delivered, and the spread of ratio and drop."""

    rows: tuple[Repeat, ...]
    delivered: int
    ratio: Spread | None
    drop: Spread | None


class Artifact(Frozen):
    """One written file: its path inside OUT, bytes, SHA-256."""

    path: str
    bytes: int
    sha256: str


class Report(Frozen):
    """The whole story of one run; `report.json` is exactly this."""

    schema_: str = SCHEMA
    request: dict[str, Any]
    environment: dict[str, Any]
    profile: dict[str, Any]
    decisions: tuple[dict[str, Any], ...]
    plan: dict[str, Any]
    steps: tuple[StepRecord, ...]
    baseline: Measurement
    final: Measurement
    ratio: float
    drop: Drop
    target_met: bool
    drop_met: bool
    verdict: Verdict
    summary: str
    artifacts: tuple[Artifact, ...]
    repeats: Repeats | None = None
    tuning: Tuning | None = None

    @property
    def changes(self) -> Changes:
        """What became of the layers; empty in reports of versions that didn't look."""
        return Changes.model_validate(self.profile.get("changes", {}))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, `schema` first; `repeats` and `tuning` only where they were asked for."""
        data = self.model_dump(mode="json", exclude={name for name in EXTRAS if getattr(self, name) is None})
        return {"schema": data.pop("schema_"), **data}


def decide(*, target_met: bool, drop_met: bool, certify: bool, certified: bool) -> Verdict:
    """Return the verdict. The floor comes first; `undecided` only when the estimate meets it and the bound does not."""
    if not drop_met:
        return "floor-missed"
    if certify and not certified:
        return "undecided"
    return "met" if target_met else "target-missed"


def exit_code(verdict: Verdict) -> int:
    """Return the process exit code of a verdict: 0 met, 1 not met, 4 undecided."""
    return {"met": 0, "target-missed": 1, "floor-missed": 1, "undecided": 4}[verdict]
