"""Bytes, operations and the interface of a model's file beside the baseline's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx

from easycompress.artifact.external import bytes_of, is_outside
from easycompress.core.errors import BadInput, CannotCompress
from easycompress.measure.compute import macs
from easycompress.measure.decoded import decoded
from easycompress.measure.statistics import within
from easycompress.regression.baseline import DATA, MODEL, PACKED
from easycompress.regression.outcome import Check, fine, unjudged, worse
from easycompress.report import units

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.regression.baseline import Reported
    from easycompress.regression.candidate import Candidate

INTERFACE, SIZE, MACS = "interface", "size", "MACs"

TYPES = {"float": "float32", "double": "float64"}
"""ONNX Runtime's names where the report has others."""


def check_interface(model: Any, baseline: Reported, reference: Any | None) -> Check:  # noqa: ANN401 - untyped sessions
    """Hold a session's inputs to the report's, and its answer's shape to that of the `reference` session."""
    known = {name: (shape, dtype) for name, shape, dtype in baseline.inputs}
    for value in model.get_inputs():
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        kind = TYPES.get(kind, kind)
        if value.name not in known:
            return _other(f"it has an input {value.name}, the baseline {', '.join(known)}")
        shape, dtype = known[value.name]
        if kind != dtype or not _fits(value.shape[1:], shape):
            sizes = "x".join(map(str, value.shape[1:])) or "scalar"
            wanted = "x".join(map(str, shape)) or "scalar"
            return _other(f"its input {value.name} is {kind} {sizes}, the baseline's {dtype} {wanted}")
    if reference is not None:
        given, wanted_answer = (session.get_outputs()[0] for session in (model, reference))
        differs = len(given.shape) != len(wanted_answer.shape) or not _fits(given.shape[1:], wanted_answer.shape[1:])
        if differs or given.type != wanted_answer.type:
            texts = [f"{v.type} {'x'.join(map(str, v.shape))}" for v in (given, wanted_answer)]
            return _other(f"it answers {texts[0]}, the baseline {texts[1]}")
    return fine(INTERFACE, "the same", "the same", "inputs and answer are the baseline's")


def check_size(candidate: Candidate, baseline: Reported, limit: float | None) -> Check:
    """Compare bytes on disk: of the packed file where that is what the baseline counts and there is one."""
    if limit is None:
        return unjudged(SIZE, "--max-size none")
    packed = candidate.packed if candidate.packed is not None and PACKED in baseline.artifacts else None
    if packed is None and candidate.packed == candidate.path:
        raise BadInput(
            f"{candidate.path}: the baseline has no packed file to compare with; unpack it, or give model.onnx"
        )
    if packed is None and candidate.saved and baseline.request.format == "packed":
        raise BadInput(f"{candidate.path}: holds no {PACKED}, which the baseline counts; compress with --format packed")
    names = (PACKED,) if packed is not None else (MODEL, DATA)
    before = sum(baseline.artifacts[name].bytes for name in names if name in baseline.artifacts)
    if not before:
        raise BadInput(f"{baseline.path}: lists no {names[0]}; write the baseline anew with easycompress compress")
    after = packed.stat().st_size if packed is not None else bytes_of(candidate.model)
    texts = [f"{units.count(size)} bytes" for size in (after, before)]
    return _ratio(SIZE, after, before, limit, texts)


def check_macs(model: Path, baseline: Reported, limit: float | None) -> Check:
    """Compare multiply-accumulates of one sample, as the graph says them."""
    if limit is None:
        return unjudged(MACS, "--max-macs none")
    proto = onnx.load(str(model), load_external_data=False)
    outside = any(is_outside(tensor) for tensor in proto.graph.initializer)
    try:
        after = macs(proto if outside else decoded(proto))
    except CannotCompress as error:
        return unjudged(MACS, str(error), f"{limit:g}x")
    before = baseline.final.macs
    return _ratio(MACS, after, before, limit, [units.macs(after), units.macs(before)])


def _ratio(name: str, after: float, before: float, limit: float, texts: list[str]) -> Check:
    ratio = after / before if before else float(after > 0) + 1.0
    passed = within(ratio, limit)
    value = f"{ratio:.3f}x"
    reason = f"{texts[0]}, {value} the baseline's {texts[1]} (allowed {limit:g}x)"
    return Check(name, passed, f"{texts[0]}, {value}", f"{limit:g}x", reason)


def _fits(given: list[Any], wanted: list[Any] | tuple[int, ...]) -> bool:
    """Tell whether shapes agree where both are numbers; names stand for any size."""
    if len(given) != len(wanted):
        return False
    return all(g == w for g, w in zip(given, wanted, strict=True) if isinstance(g, int) and isinstance(w, int))


def _other(reason: str) -> Check:
    return worse(INTERFACE, "another", "the same", reason)
