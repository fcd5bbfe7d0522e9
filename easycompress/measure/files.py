"""Everything measured about written files: bytes from the disk, answers and times from ONNX Runtime."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx

from easycompress.artifact.external import bytes_of
from easycompress.core.outcome import Latency, Measurement
from easycompress.measure.compute import macs
from easycompress.measure.decoded import decoded
from easycompress.measure.energy import estimate
from easycompress.measure.latency import time_files
from easycompress.measure.meter import measure

if TYPE_CHECKING:
    from pathlib import Path

    from easycompress.core.goal import Objective
    from easycompress.core.inputs import Inputs
    from easycompress.measure.meter import Meter


def params(proto: onnx.ModelProto) -> int:
    """Return the number of stored values of the graph's weights, floats and integers.

    Shapes, scales, indices and lone constants (the bounds of a Clip, the factor of a Mul) are no parameters.
    """
    helpers = _helper_inputs(proto)
    types = ("FLOAT", "FLOAT16", "INT8", "UINT8", "INT4", "UINT4", "INT32")
    kinds = [onnx.TensorProto.DataType.Value(name) for name in types]
    total = 0
    for tensor in proto.graph.initializer:
        if tensor.data_type in kinds and tensor.dims and tensor.name not in helpers:
            total += math.prod(tensor.dims)
    return total


def _helper_inputs(proto: onnx.ModelProto) -> set[str]:
    """Return the names of initializers that are scales and zero points."""
    helpers = {"QuantizeLinear": 1, "DequantizeLinear": 1, "MatMulInteger": 2, "DynamicQuantizeLSTM": 8}
    found = {name for node in proto.graph.node for name in node.input[helpers.get(node.op_type, len(node.input)) :]}
    makers = {name: node for node in proto.graph.node for name in node.output}
    for node in proto.graph.node:
        sides = [makers.get(name) for name in node.input] if node.op_type == "Mul" else []
        kinds = [None if side is None else side.op_type for side in sides]
        if "DynamicQuantizeLinear" in kinds:  # the scale of what was measured by those of a weight
            found.update(node.input)
        elif sorted(map(str, kinds)) == ["Cast", "Gather"]:  # a row of integers by its scale, both looked up
            found.update(side.input[0] for side in sides if side is not None and side.op_type == "Gather")
    return found


def objective_of(path: Path, objective: Objective) -> float:
    """Return what a file weighs by its objective: bytes, MACs or estimated mJ. What is measured is so only in pairs."""
    if objective == "size":
        return float(bytes_of(path))
    proto = onnx.load(str(path))
    made = decoded(proto)
    return float(macs(made)) if objective == "compute" else estimate(made, _moved(proto, made, path)).value


def _moved(proto: onnx.ModelProto, made: onnx.ModelProto, path: Path) -> int:
    """Return the bytes that running a file moves: a self-decoding one runs on the weights that it decoded."""
    return path.stat().st_size if made is proto else int(made.ByteSize())


def measure_large(
    graph: onnx.ModelProto, baseline: Path, described: int, final: Path, qualities: tuple[float, float]
) -> tuple[Measurement, Measurement]:
    """Measure a model over 2 GB whose file isn't written, and the `final` one. Neither is timed, energy is estimated.

    `graph` is the original's as it was exported: fewer bits leave its operations as they are. `baseline` is what of its
    file there is, `described` the bytes of the whole.
    """
    operations = macs(graph)
    pairs = ((baseline, described), (final, bytes_of(final)))
    before, after = (
        Measurement(
            quality=quality,
            size_bytes=size,
            params=params(onnx.load(str(path), load_external_data=False)),
            macs=operations,
            latency_ms=(),
            energy_mj=estimate(graph, size),
        )
        for (path, size), quality in zip(pairs, qualities, strict=True)
    )
    return before, after


def latency_ratio(baseline: Path, candidate: Path, example: Inputs, batch: int, threads: int) -> tuple[float, float]:
    """Return (candidate's median ms, baseline median / candidate median), timed in alternating blocks."""
    before, after = time_files([baseline, candidate], example, batch, threads)
    return after.median, before.median / after.median


def energy_ratio(baseline: Path, candidate: Path, example: Inputs, threads: int, meter: Meter) -> tuple[float, float]:
    """Return (candidate's mJ, baseline / candidate), measured in alternating blocks."""
    before, after = measure([baseline, candidate], example, threads, meter)
    return after.value, before.value / after.value


def measure_pair(
    baseline: Path,
    final: Path,
    counted: Path,
    qualities: tuple[float, float],
    example: Inputs,
    batches: tuple[int, ...],
    threads: int,
    meter: Meter | None = None,
) -> tuple[Measurement, Measurement]:
    """Measure both files in the same run. `qualities` are theirs on *report*, `batches` what latency is timed at.

    `counted` is the file whose bytes are the final one's size: itself, or the packed one of the same model. Energy is
    measured with `meter`, without one estimated for both: the two are never mixed.
    """
    measured = None if meter is None else measure([baseline, final], example, threads, meter)
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
                energy_mj=estimate(proto, _moved(stored, proto, path)) if measured is None else measured[index],
            )
        )
    return results[0], results[1]
