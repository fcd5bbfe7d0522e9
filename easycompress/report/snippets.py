"""How to run and load a result: code that a reader copies, made for this very model."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from easycompress.core.request import Request

if TYPE_CHECKING:
    from collections.abc import Collection

    from easycompress.core.outcome import Report

PACKED = "model.ecz"

PROGRAM, PRETRAINED = "model.pt2", "pretrained/"
"""Files of a result that hold a graph, or the configuration of a Hugging Face model."""

IMAGE_DIMENSIONS = 3
"""Dimensions of one sample that make it an image: channels, height, width."""


def run_snippet(report: Report) -> str:
    """Return Python code that runs the result on one sample of zeros, in the folder that holds `model.onnx`."""
    profile, request = report.profile, Request.model_validate(report.request)
    if len(profile.get("inputs", ())) > 1:
        return _several_inputs(report)
    shape = tuple(profile["input_shape"])
    dtype = str(profile.get("input_dtype", "float32")).removeprefix("torch.")
    image = len(shape) == IMAGE_DIMENSIONS and dtype == "float32"
    name = json.dumps(profile["input_name"]) if profile.get("input_name") else "session.get_inputs()[0].name"
    scaled = ", scaled to 0..1" if request.mean and request.std else ""
    what = f"your images{scaled}: batch, channels, height, width" if image else "your samples, batch first"
    lines = [
        "import numpy as np",
        "import onnxruntime as ort",
        "",
        'session = ort.InferenceSession("model.onnx")',
        f"# {what}",
        f"x = np.zeros({(1, *shape)}, dtype=np.{dtype})",
    ]
    if image and request.mean and request.std:
        for key, values in (("mean", request.mean), ("std", request.std)):
            lines.append(f"{key} = np.array({list(values)}, dtype=np.{dtype}).reshape(-1, 1, 1)")
        lines.append("x = (x - mean) / std  # the file holds no normalisation")
    outputs = profile["outputs"]
    lines.append(f"y = session.run(None, {{{name}: x}})[0]  # {outputs} output{'' if outputs == 1 else 's'} a sample")
    unpack = [f"# easycompress unpack {PACKED} -o model.onnx"] if _only_packed(report) else []
    return "\n".join(unpack + lines)


def _several_inputs(report: Report) -> str:
    """Return the same for a model that takes several tensors."""
    outputs = report.profile["outputs"]
    lines = [f"# easycompress unpack {PACKED} -o model.onnx"] if _only_packed(report) else []
    lines += ["import numpy as np", "import onnxruntime as ort", "", 'session = ort.InferenceSession("model.onnx")']
    lines.append("inputs = {  # your samples, batch first")
    for value in report.profile["inputs"]:
        shape, dtype = (1, *value["shape"]), str(value["dtype"])
        lines.append(f"    {json.dumps(value['name'])}: np.zeros({shape}, dtype=np.{dtype}),")
    lines += ["}", f"y = session.run(None, inputs)[0]  # {outputs} output{'' if outputs == 1 else 's'} a sample"]
    return "\n".join(lines)


def load_snippet(request: Request, files: Collection[str] = ()) -> str:
    """Return Python code that loads the result back into PyTorch, from where the run was started.

    `files` are the result's. What makes the original module is named as the request names it; where nothing does, as
    for a module handed over in Python, the reader has to fill it in.
    """
    folder = json.dumps(f"{(request.out or '.').rstrip('/')}/")
    begin = ["import easycompress as ec", ""]
    if PROGRAM in files:
        return "\n".join([*begin, f"model = ec.load({folder})"])
    if any(name.startswith(PRETRAINED) for name in files):
        return "\n".join([*begin, f"model = ec.load({folder}, factory={json.dumps(request.model)})"])
    source, _, name = (request.factory or "").rpartition(":")
    if source == "torchvision":
        begin = ["import easycompress as ec", "from torchvision.models import get_model", ""]
        return "\n".join([*begin, f"model = ec.load({folder}, factory=lambda: get_model({json.dumps(name)}))"])
    path = Path(source)
    module = path.stem if path.suffix == ".py" else source
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        made = "# make_model() returns the original module, as before compression; its weights don't matter"
        return "\n".join([*begin, made, f"model = ec.load({folder}, factory=make_model)"])
    where = str(path.parent) if path.suffix == ".py" else "."
    found = ["import sys", *begin, f"sys.path.insert(0, {json.dumps(where)})"]
    return "\n".join([*found, f"from {module} import {name}", "", f"model = ec.load({folder}, factory={name})"])


def unpack_line(report: Report) -> str | None:
    """Return the command that makes an ONNX file of the packed one, from where the run was started; None if none."""
    if not any(artifact.path == PACKED for artifact in report.artifacts):
        return None
    path = f"{(Request.model_validate(report.request).out or '.').rstrip('/')}/{PACKED}"
    return f"easycompress unpack {shlex.quote(path)} -o model.onnx"


def _only_packed(report: Report) -> bool:
    names = {artifact.path for artifact in report.artifacts}
    return PACKED in names and "model.onnx" not in names
