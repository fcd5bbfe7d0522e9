"""NNCodec: the weights coded at the quantization parameter that is the argument, and decoded into an ONNX file.

Scalars are left as they are: it takes none.
"""

import sys
from pathlib import Path

import onnx
import task
from nncodec import nn
from onnx import numpy_helper

graph = onnx.load(task.FLOAT)
floats = [t for t in graph.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and t.dims]
weights = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in floats}
coded = nn.encode(weights, {"qp": int(sys.argv[1]), "verbose": False})
Path("model.nnc").write_bytes(bytes(coded))
decoded = nn.decode(bytearray(Path("model.nnc").read_bytes()))
for tensor in floats:
    tensor.CopyFrom(numpy_helper.from_array(decoded[tensor.name].reshape(tuple(tensor.dims)), tensor.name))
onnx.save(graph, "decoded.onnx")
