"""Energy of one inference, estimated from operations and bytes. Never mixed with measured energy."""

from __future__ import annotations

import onnx

from easycompress.core.outcome import Energy
from easycompress.measure.compute import macs_by_operator

# Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, figure 1.1.9, 45 nm, in picojoule:
# a multiplication plus an addition, and 32 bits from DRAM.
MAC_FLOAT32_PJ = 3.7 + 0.9
MAC_INT8_PJ = 0.2 + 0.03
DRAM_BYTE_PJ = 640.0 / 4

PICO_TO_MILLI = 1e-9


def estimate(proto: onnx.ModelProto, size_bytes: int) -> Energy:
    """Estimate one inference at batch 1: every operation once, every byte of the file once from DRAM, in mJ."""
    integer = any(node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for node in proto.graph.node)
    int8 = {t.name for t in proto.graph.initializer if t.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)}
    picojoule = size_bytes * DRAM_BYTE_PJ
    for row in macs_by_operator(proto):
        picojoule += row.macs * (MAC_INT8_PJ if integer and row.weight in int8 else MAC_FLOAT32_PJ)
    return Energy(value=picojoule * PICO_TO_MILLI, source="estimated")
