"""Everything measured about written files: bytes from the disk, answers and times from ONNX Runtime."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx

from easycompress.core.outcome import Latency, Measurement
from easycompress.measure.compute import macs
from easycompress.measure.decoded import decoded
from easycompress.measure.energy import estimate
from easycompress.measure.latency import time_files

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from easycompress.core.goal import Objective


def params(proto: onnx.ModelProto) -> int:
    """Return the number of stored values of the graph's float and int8 weights.

    Shapes, scales, indices and lone constants (the bounds of a Clip, the factor of a Mul) are no parameters.
    """
    helpers = _helper_inputs(proto)
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.INT32)
    total = 0
    for tensor in proto.graph.initializer:
        if tensor.data_type in kinds and tensor.dims and tensor.name not in helpers:
            total += math.prod(tensor.dims)
    return total


def _helper_inputs(proto: onnx.ModelProto) -> set[str]:
    """Return the names of initializers that are scales and zero points."""
    quantizers = [n for n in proto.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    return {name for node in quantizers for name in node.input[1:]}


def objective_of(path: Path, objective: Objective) -> float:
    """Return what a file weighs by its objective: bytes, MACs or mJ. Latency is only ever measured in pairs."""
    size = path.stat().st_size
    if objective == "size":
        return float(size)
    proto = onnx.load(str(path))
    made = decoded(proto)
    return float(macs(made)) if objective == "compute" else estimate(made, _moved(proto, made, path)).value


def _moved(proto: onnx.ModelProto, made: onnx.ModelProto, path: Path) -> int:
    """Return the bytes that running a file moves: a self-decoding one runs on the weights that it decoded."""
    return path.stat().st_size if made is proto else int(made.ByteSize())


def latency_ratio(baseline: Path, candidate: Path, example: Tensor, batch: int, threads: int) -> tuple[float, float]:
    """Return (candidate's median ms, baseline median / candidate median), timed in alternating blocks."""
    before, after = time_files([baseline, candidate], example, batch, threads)
    return after.median, before.median / after.median


def measure_pair(
    baseline: Path,
    final: Path,
    counted: Path,
    qualities: tuple[float, float],
    example: Tensor,
    batches: tuple[int, ...],
    threads: int,
) -> tuple[Measurement, Measurement]:
    """Measure both files in the same run. `qualities` are theirs on *report*, `batches` what latency is timed at.

    `counted` is the file whose bytes are the final one's size: itself, or the packed one of the same model.
    """
    pairs = [time_files([baseline, final], example, batch, threads) for batch in batches]
    results = []
    for index, (path, quality) in enumerate(zip((baseline, final), qualities, strict=True)):
        times: tuple[Latency, ...] = tuple(pair[index] for pair in pairs)
        stored = onnx.load(str(path))
        proto = decoded(stored)
        size = (path if path == baseline else counted).stat().st_size
        results.append(
            Measurement(
                quality=quality,
                size_bytes=size,
                params=params(proto),
                macs=macs(proto),
                latency_ms=times,
                energy_mj=estimate(proto, _moved(stored, proto, path)),
            )
        )
    return results[0], results[1]
