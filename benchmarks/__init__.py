"""Experiments that are too long for tests. Each is run by `python -m benchmarks.NAME` and prints what it measured."""

import easycompress as easycompress  # before onnxruntime, whose telemetry it turns off
