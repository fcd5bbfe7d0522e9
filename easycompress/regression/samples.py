"""The report split of a baseline, read again: the same samples, with the targets that the baseline was judged by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from easycompress.assemble import read_data
from easycompress.core.errors import BadInput
from easycompress.core.inputs import repeated
from easycompress.core.task import Metric, Split
from easycompress.intake.detection import as_tensors
from easycompress.intake.judging import UNLABELLED
from easycompress.intake.models import Loaded, load_model
from easycompress.intake.onnx_open import Face
from easycompress.intake.splits import make_splits
from easycompress.intake.synthetic import make_inputs
from easycompress.intake.task import find_metric
from easycompress.metrics import DETECTION, METRICS, OWN_ANSWERS, Facts, fitted
from easycompress.metrics.language import next_tokens
from easycompress.metrics.values import spread
from easycompress.predictions import marks, others

if TYPE_CHECKING:
    from easycompress.core.inputs import Inputs
    from easycompress.core.references import References
    from easycompress.core.request import Request
    from easycompress.intake.data import Raw
    from easycompress.predictions import Predictions
    from easycompress.regression.baseline import Reported

FEW = 0.01
"""Share of the samples whose marks may differ: pictures that two versions of a library decode differently."""

NEEDS_MODEL = DETECTION | {"token-f1"}
"""Metrics that ask the original: a detector's anchors, the names of the tags."""


class NoData(BadInput):
    """There is no data to run a model on, or it can't be read here."""


@dataclass(frozen=True)
class Samples:
    """The report split with the baseline's targets, its metric, and the baseline's scores (N,) or (N, K) on it."""

    split: Split
    metric: Metric
    scores: np.ndarray[Any, Any]


def read_samples(
    baseline: Reported,
    known: Predictions,
    data: str | None,
    given: dict[str, object],
    *,
    trust_pickle: bool,
) -> Samples:
    """Read the report split that the baseline was judged on. `data` and `given` as in compress(), None and {}: its own.

    Raises NoData where there is none, BadInput where the samples aren't the baseline's, or the metric can't be had.
    """
    request, base = _request(baseline, data, given)
    loaded = _original(baseline, request, trust_pickle=trust_pickle)
    inputs, targets, references = _read(request, base, given, loaded)
    check_same(known, inputs, targets, baseline.metric.name)
    stored = torch.from_numpy(known.targets) if len(known.targets) else None
    example = repeated(inputs[:2], 2)
    metric, scores = make_metric(baseline, known, base, _facts(loaded.model, example, known, references))
    return Samples(Split(inputs, stored), metric, scores)


def make_metric(baseline: Reported, known: Predictions, base: Path | None, facts: Facts) -> tuple[Metric, Any]:
    """Return the metric of a baseline and the baseline's scores. Raises BadInput where these don't go together."""
    said = baseline.metric
    if said.name in METRICS:
        metric, _ = fitted(METRICS[said.name], facts)
    elif base is not None:
        metric = find_metric(said.name, base)
    elif known.scores_after.ndim == 1:
        metric = Metric(said.name, _unused, percent=said.percent, higher_is_better=said.higher_is_better)
    else:
        raise BadInput(f"--metric {said.name}: a metric of the whole split needs the samples; give --data")
    scores = known.scores_after
    if said.name == "fidelity" and base is not None:
        if len(known.after) != len(scores):
            raise BadInput(f"{baseline.path}: its answers were too large to keep, so fidelity can't be measured again")
        # The baseline's own measure, the variance on another split, isn't stored: both are measured by this one.
        scores = metric.scores(torch.from_numpy(known.after), torch.from_numpy(known.targets))
    elif metric.of_rows is None or said.name in METRICS:
        quality = metric.quality(scores)
        if not np.isclose(quality, baseline.final.quality, rtol=1e-6, atol=1e-9, equal_nan=True):
            raise BadInput(
                f"{baseline.path}: quality {baseline.final.quality:g} by the report, {quality:g} by the scores in "
                "predictions.npz: the original model is needed to judge by this metric; run where its path leads to it"
            )
    return metric, scores


def check_same(known: Predictions, inputs: Inputs, targets: torch.Tensor | None, metric: str) -> None:
    """Raise BadInput where samples aren't those of the baseline's predictions: a comparison would mean nothing."""
    count = len(known.scores_after)
    told = "quality can't be compared: give the --data of the baseline, whose report split must be the same samples"
    if len(inputs) != count:
        raise BadInput(f"the report split holds {len(inputs)} samples, the baseline's {count}; {told}")
    stored = torch.from_numpy(known.targets) if len(known.targets) else None
    if targets is not None and stored is not None and metric not in OWN_ANSWERS:
        different = _differing(stored, targets)
        if different:
            raise BadInput(f"{different} of the {count} samples have other labels than the baseline's; {told}")
    if len(known.samples):
        strange = others(known.samples, marks(inputs))
        if strange > FEW * count:
            raise BadInput(f"{strange} of the {count} samples are others than the baseline's; {told}")


def _differing(stored: torch.Tensor, given: torch.Tensor) -> int:
    """Return in how many samples the labels differ; a language model's own tokens are stored shifted by one."""
    if stored.dim() == given.dim() == 2 and stored.shape == given.shape and not given.is_floating_point():  # noqa: PLR2004 - (N, T)
        shifted = int((stored != next_tokens(given)).any(1).sum())
        return min(shifted, int((stored != given).any(1).sum()))
    if stored.shape != given.shape:
        return len(given)
    same = torch.isclose(stored.double(), given.double(), rtol=1e-4, atol=1e-6, equal_nan=True)
    return int((~same).reshape(len(same), -1).any(1).sum())


def _request(baseline: Reported, data: str | None, given: dict[str, object]) -> tuple[Request, Path]:
    """Return the baseline's request, with other data where it was named, and the folder that its paths start from."""
    request = baseline.request
    if given:
        return request.model_copy(update={"data": None}), _base(request.model, baseline)
    if data is not None:
        return request.model_copy(update={"data": str(Path(data).resolve()) if Path(data).exists() else data}), Path()
    if request.data is None:
        if request.shape is not None:
            return request, Path()
        raise NoData("the baseline's report names no data, so quality can't be judged; add --data")
    return request, _base(request.data, baseline)


def _base(spec: str, baseline: Reported) -> Path:
    """Return the folder where a relative path leads somewhere: the working folder, the report's, or the one above."""
    name = spec.rpartition(":")[0] if ".py:" in spec else spec
    folders = (Path(), baseline.folder, baseline.folder.parent)
    return next((folder for folder in folders if (folder / name).exists()), Path())


def _original(baseline: Reported, request: Request, *, trust_pickle: bool) -> Loaded:
    """Return the original model where data or metric need it, else what only knows the names of the inputs."""
    home = _base(request.model, baseline)
    path = home / request.model
    if path.is_dir() or (baseline.metric.name in NEEDS_MODEL and path.exists()):
        return load_model(path, request.factory, home, trust_pickle=trust_pickle or request.trust_pickle)
    if baseline.metric.name in DETECTION:
        raise BadInput(f"{request.model}: not found; --metric {baseline.metric.name} needs the original's anchors")
    return Loaded(Face([name for name, _, _ in baseline.inputs]), None, ())


def _read(
    request: Request, base: Path, given: dict[str, object], loaded: Loaded
) -> tuple[Inputs, torch.Tensor | None, References | None]:
    """Return inputs, labels and references of the report split; of a run without data, the made-up inputs again."""
    if not given and request.data is None:
        inputs, _ = make_inputs(nn.Identity(), request.shape)
        return inputs[len(inputs) // 2 :], None, None
    try:
        raw: Raw = read_data(request, base, given, loaded)
    except BadInput as error:
        reason = str(error).partition(";")[0]  # what follows lists all that --data takes
        raise NoData(f"{reason}; the baseline was judged on it: say with --data where it is") from error
    labelled = not raw.unlabelled if request.metric is None else request.metric not in UNLABELLED
    splits = make_splits(raw, seed=request.drawn_by, labelled=labelled)
    return splits.report.inputs, splits.report.targets, raw.references


def _facts(model: nn.Module, example: Inputs, known: Predictions, references: References | None) -> Facts:
    names = getattr(getattr(model, "config", None), "id2label", None) or {}
    values = torch.from_numpy(known.targets) if len(known.targets) else None
    return Facts(
        shape=(1,) * (1 + known.scores_after.ndim),  # of accuracy at several places each sample has a row
        references=references,
        names=tuple(str(names[i]) for i in range(len(names))) if set(names) == set(range(len(names))) else (),
        spread=spread(values) if values is not None and values.is_floating_point() else 1.0,
        decode=getattr(as_tensors(model, example), "detections", None),
    )


def _unused(_outputs: torch.Tensor, _targets: torch.Tensor) -> np.ndarray[Any, Any]:
    raise NotImplementedError  # the scores are stored
