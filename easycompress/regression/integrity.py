"""Whether a result's files are what its report says, open, and decode to weights that are numbers."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from easycompress.artifact.container import read_ecz
from easycompress.artifact.external import data_of, is_outside
from easycompress.artifact.write import unpacked
from easycompress.core.errors import BadInput, one_line
from easycompress.core.opening import last_line, opened
from easycompress.measure.decoded import decoded
from easycompress.regression.baseline import is_pointer
from easycompress.regression.outcome import Check, fine, unjudged, worse

if TYPE_CHECKING:
    from easycompress.regression.candidate import Candidate

OPENING_SECONDS = 300.0
"""A file that nobody vouches for is opened in a process of its own, which may take so long."""

FILES, DECODING = "files", "decoding"


def check_files(candidate: Candidate) -> Check:
    """Hold every file of a result to the bytes and SHA-256 in its own report."""
    if candidate.report is None:
        return unjudged(FILES, "a file alone, which no report vouches for", "as reported")
    found = [candidate.report.wrong(name) for name in candidate.claimed]
    wrong = [text for text in found if text is not None]
    right = f"{len(found) - len(wrong)} of {len(found)}"
    reason = "; ".join(wrong) or "bytes and SHA-256 are those of the result's own report"
    return Check(FILES, not wrong, right, "as reported", reason)


def opens(candidate: Candidate) -> str | None:
    """Return why ONNX Runtime doesn't open the model, tried in a process of its own; None where it does."""
    if not candidate.model.is_file():
        return f"{candidate.model.name} is missing or can't be unpacked"
    if is_pointer(candidate.model):
        return "it is a pointer of Git LFS, not the file (git lfs pull fetches it)"
    try:
        found = opened(candidate.model, OPENING_SECONDS, data_bytes=_data_bytes(candidate))
    except subprocess.TimeoutExpired:
        return f"ONNX Runtime didn't open it in {OPENING_SECONDS:.0f} s"
    if not found.code:
        return None
    if found.code < 0:
        return f"ONNX Runtime crashes on it (signal {-found.code})"
    return f"ONNX Runtime doesn't open it: {last_line(found.text)[:200]}"


def check_decoding(candidate: Candidate) -> Check:
    """Decode the model's weights as a session would, and the packed file, which must give the same model."""
    try:
        stored = onnx.load(str(candidate.model), load_external_data=False)
        onnx.checker.check_model(str(candidate.model))
        outside = any(is_outside(tensor) for tensor in stored.graph.initializer)
        proto = stored if outside else decoded(stored)
    except Exception as error:  # noqa: BLE001 - the checker's, protobuf's and ONNX Runtime's own errors share no base
        return worse(DECODING, "fails", "whole", f"the weights don't decode: {one_line(error, 160)}")
    weights = [tensor for tensor in proto.graph.initializer if not is_outside(tensor)]
    broken = [tensor.name for tensor in weights if _holds_nan(tensor)]
    if broken:
        return worse(DECODING, "fails", "whole", f"{broken[0]} holds values that are no numbers (NaN)")
    reason = f"{len(weights)} tensors decode to numbers"
    if candidate.packed is not None and candidate.packed != candidate.path:
        wrong = _packed_wrong(candidate, stored, proto)
        if wrong is not None:
            return worse(DECODING, "fails", "whole", wrong)
        reason += f", and {candidate.packed.name} to the same model"
    return fine(DECODING, "whole", "whole", reason)


def _packed_wrong(candidate: Candidate, stored: onnx.ModelProto, proto: onnx.ModelProto) -> str | None:
    """Return how the packed file differs from the model beside it, None where it decodes to the same."""
    assert candidate.packed is not None  # noqa: S101 - as the caller has checked
    try:
        made = unpacked(*read_ecz(candidate.packed))
    except BadInput as error:
        return str(error)
    if made == stored:
        return None
    known, given = ({t.name: numpy_helper.to_array(t) for t in p.graph.initializer} for p in (proto, decoded(made)))
    differing = sorted(known.keys() ^ given.keys()) + [
        name for name in sorted(known.keys() & given.keys()) if not np.array_equal(known[name], given[name])
    ]
    return (
        f"{candidate.packed.name} decodes to another {differing[0]} than the model.onnx beside it"
        if differing
        else None
    )


def _holds_nan(tensor: onnx.TensorProto) -> bool:
    """Tell whether a tensor holds NaN. Infinity is what masks of attention are made of."""
    values = numpy_helper.to_array(tensor)
    floats = values.dtype.kind == "f" or values.dtype.name == "bfloat16"
    return floats and bool(np.isnan(values.astype(np.float32)).any())


def _data_bytes(candidate: Candidate) -> int:
    data = data_of(candidate.model)
    return data.stat().st_size if data.exists() else 0
