"""check(): a result, or a model's file measured now, beside the `final` of a baseline report."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from easycompress.artifact.session import open_session
from easycompress.core.errors import BadInput, CannotCompress, one_line
from easycompress.core.inputs import Bundle
from easycompress.core.progress import Progress, Silent
from easycompress.intake.handed import named_splits
from easycompress.measure.runtime import physical_cores
from easycompress.regression.baseline import MODEL, Reported, read_report
from easycompress.regression.candidate import Candidate, find_candidate
from easycompress.regression.files import INTERFACE, MACS, SIZE, check_interface, check_macs, check_size
from easycompress.regression.integrity import DECODING, check_decoding, check_files, opens
from easycompress.regression.latency import LATENCY, check_latency
from easycompress.regression.limits import Limits, parse_limits
from easycompress.regression.outcome import Check, Outcome, unjudged, worse
from easycompress.regression.quality import QUALITY, check_answers, check_saved, drifted
from easycompress.regression.samples import NoData, Samples, read_samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easycompress.core.inputs import Inputs

EXAMPLE = 2
"""Samples that a batch to time is made of."""


@dataclass(frozen=True)
class _Asked:
    """What one comparison was asked for, read and checked. `data`, `given`: the samples, None and {} for its own."""

    baseline: Reported
    limits: Limits
    reference: Path | None
    data: str | None
    given: dict[str, object]
    threads: int
    trust_pickle: bool


def check(
    candidate: str | Path,
    *,
    baseline: str | Path,
    max_drop: str | float | None = None,
    max_size: str | float | None = None,
    max_macs: str | float | None = None,
    max_latency_ratio: str | float | None = None,
    data: object = None,
    train: object = None,
    validation: object = None,
    test: object = None,
    reference: str | Path | None = None,
    threads: int | None = None,
    trust_pickle: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Compare `candidate`, a finished result's folder, a model.onnx or a model.ecz, with a baseline's report.json.

    Limits: `max_drop` 0.5% (points; 0.5%rel of metrics that are no percentages), `max_size` 1.02x, `max_macs` 1.02x,
    `max_latency_ratio` 1.15x of the time of `reference` (default: the baseline's model.onnx) in this run; "none" leaves
    a check out. `data`, `train`, `validation`, `test` as in compress(), by default what the baseline's report names.
    Without them a result's stored answers are compared. `threads`: what is timed, default as the baseline.

    Raises BadInput where there is nothing to compare; what got worse is no exception: see `outcome.passed`.
    """
    progress = progress or Silent()
    report = read_report(Path(baseline))
    limits = parse_limits(
        *(None if value is None else str(value) for value in (max_drop, max_size, max_macs, max_latency_ratio)),
        percent_metric=report.metric.percent,
        metric=report.metric.name,
    )
    named = str(data) if isinstance(data, (str, Path)) else None
    splits = named_splits(None if named is not None else data, (train, validation, test))
    given = {n: value for n, value in zip(("train", "validation", "test"), splits, strict=True) if value is not None}
    if named is not None and given:
        raise BadInput("--data and splits handed over in Python both give the samples; give one of them")
    asked = _Asked(
        baseline=report,
        limits=limits,
        reference=_reference(report, limits, reference),
        data=named,
        given=given,
        threads=threads or report.request.threads or physical_cores(),
        trust_pickle=trust_pickle,
    )
    with tempfile.TemporaryDirectory(prefix="easycompress-") as scratch, torch.random.fork_rng(devices=[]):
        found = find_candidate(Path(candidate), Path(scratch))
        try:
            checks, notes = _checks(found, asked, progress)
        except CannotCompress as error:  # nothing is compressed here: a file that ONNX Runtime can't run is bad input
            raise BadInput(str(error)) from error
    return Outcome(str(candidate), str(baseline), tuple(checks), tuple(notes))


def _reference(baseline: Reported, limits: Limits, named: str | Path | None) -> Path | None:
    """Return what is timed beside the candidate, None where nothing is. Raises BadInput where it isn't there."""
    if limits.latency is None:
        return None
    if named is not None:
        if not Path(named).is_file():
            raise BadInput(f"--reference {named}: doesn't exist; give the .onnx file to time against")
        return Path(named)
    if not (baseline.folder / MODEL).is_file():
        raise BadInput(
            f"{baseline.folder}: holds no {MODEL} to time against; give --reference M.onnx, or --max-latency-ratio none"
        )
    return baseline.trusted(MODEL)


def _checks(candidate: Candidate, asked: _Asked, progress: Progress) -> tuple[list[Check], list[str]]:
    """Carry out the checks, the cheap ones first. What can't be judged once another has failed is said to be so."""
    files = check_files(candidate)
    checks, notes = [files], list[str]()
    if files.passed is not True:  # nobody vouches for what is about to be opened in this process
        progress.now("opening the model")
        wrong = opens(candidate)
        if wrong is not None:
            if files.passed is None:
                raise BadInput(f"{candidate.path}: {wrong}; give a file that ONNX Runtime runs")
            lost = worse(DECODING, "fails", "whole", wrong)
            return [files, lost, *_lost((SIZE, MACS, INTERFACE, QUALITY, LATENCY), DECODING)], []
    progress.now("decoding the weights")
    checks.append(check_decoding(candidate))
    checks.append(check_size(candidate, asked.baseline, asked.limits.size))
    if checks[1].passed is False:
        return [*checks, *_lost((MACS, INTERFACE, QUALITY, LATENCY), DECODING)], []
    checks.append(check_macs(candidate.model, asked.baseline, asked.limits.macs))
    reference = None if asked.reference is None else _session(asked.reference)
    interface = check_interface(_session(candidate.model), asked.baseline, reference)
    checks.append(interface)
    if not interface.passed:
        return [*checks, *_lost((QUALITY, LATENCY), INTERFACE)], notes
    progress.now("running the model on the report split")
    quality, samples = _quality(candidate, asked, notes, vouched=files.passed is True)
    checks.append(quality)
    if asked.reference is None or asked.limits.latency is None:
        checks.append(unjudged(LATENCY, "--max-latency-ratio none"))
    elif quality.measured == "fails":
        checks.extend(_lost((LATENCY,), QUALITY))
    else:
        progress.now("timing the model beside the reference")
        example = _example(asked.baseline) if samples is None else samples.split.inputs[:EXAMPLE]
        batch, limit = asked.baseline.request.batch, asked.limits.latency
        checks.append(check_latency(asked.reference, candidate.model, example, batch, asked.threads, limit))
    return checks, notes


def _quality(candidate: Candidate, asked: _Asked, notes: list[str], *, vouched: bool) -> tuple[Check, Samples | None]:
    """Judge quality by a run on the samples; where these can't be read here, by the answers stored with a result.

    Those are its own where its report is `vouched` for by the files.
    """
    baseline, floor = asked.baseline, asked.limits.drop
    if floor.kind == "none":
        return unjudged(QUALITY, "--max-drop none"), None
    known = baseline.predictions()
    try:
        samples = read_samples(baseline, known, asked.data, asked.given, trust_pickle=asked.trust_pickle)
    except NoData as error:
        if not candidate.saved or candidate.report is None or asked.data is not None or asked.given:
            raise
        if not vouched:
            return unjudged(QUALITY, f"not judged: the stored answers aren't this model's, and {error}", "-"), None
        notes.append(f"quality: the answers stored with the result are compared, not new ones ({error})")
        return check_saved(baseline, known, candidate.report.predictions(), floor), None
    found = check_answers(candidate.model, asked.threads, samples, known, floor)
    here = baseline.folder / MODEL
    if not found.passed and MODEL in baseline.artifacts and baseline.wrong(MODEL) is None:
        strange = drifted(here, asked.threads, samples)
        if strange:
            notes.append(
                f"the baseline's own {MODEL} scores {strange} of the {len(samples.scores)} samples otherwise here than "
                "when it was reported: another ONNX Runtime or processor has a part in this"
            )
    return found, samples


def _session(path: Path) -> Any:  # noqa: ANN401 - onnxruntime is untyped
    try:
        return open_session(path, 1)
    except Exception as error:  # the runtime's own error types share no public base class
        raise BadInput(f"{path}: ONNX Runtime can't load it: {one_line(error, 160)}; give another file") from error


def _lost(names: Sequence[str], cause: str) -> list[Check]:
    return [unjudged(name, f"not judged, as {cause} failed", "-") for name in names]


def _example(baseline: Reported) -> Inputs:
    """Return made-up samples of the shapes in the report, good enough to time: ones for integers, else noise."""
    generator = torch.Generator().manual_seed(0)
    tensors = []
    for _, shape, dtype in baseline.inputs:
        kind = getattr(torch, dtype, None)
        if not isinstance(kind, torch.dtype):
            raise BadInput(f"{baseline.path}: inputs of type {dtype}, which torch lacks; give an unchanged report")
        noise = torch.randn(EXAMPLE, *shape, generator=generator)
        tensors.append(noise.to(kind) if kind.is_floating_point else torch.ones(EXAMPLE, *shape, dtype=kind))
    names = tuple(name for name, _, _ in baseline.inputs)
    return tensors[0] if len(tensors) == 1 else Bundle(tuple(tensors), names)
