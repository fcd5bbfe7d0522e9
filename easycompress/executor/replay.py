"""From the written record back to a module: the structure replayed on a fresh one, then the weights."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from easycompress.artifact.pt2 import PROGRAM
from easycompress.codes.reading import read_code
from easycompress.core.errors import BadInput, EasyCompressError, one_line
from easycompress.core.files import read_json
from easycompress.core.inputs import Bundle, parts
from easycompress.intake.computed import plain_weights
from easycompress.intake.detection import as_tensors
from easycompress.intake.exported import read_exported
from easycompress.intake.models import load_model
from easycompress.techniques import technique_named

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from easycompress.core.inputs import Inputs

SCHEMA = "easycompress-record/2"

MOST_SAMPLE = 1 << 28
"""Numbers in one sample that a record may speak of: a gigabyte of float32."""

DTYPES = ("float32", "float64", "float16", "bfloat16", "bool", "uint8", "int8", "int16", "int32", "int64")


def record_json(
    records: tuple[dict[str, Any], ...], codes: dict[str, dict[str, Any]], example: Inputs
) -> dict[str, Any]:
    """Return record.json: the structural records in order, the form and meta of codes, and what one sample is like.

    `example` is a batch (n, ...) of inputs. `sample_shape` and `sample_dtype` are the first tensor's; where there are
    several, `samples` lists them all with `names`, empty where they are passed in order.
    """
    samples = [{"shape": list(t.shape[1:]), "dtype": str(t.dtype).removeprefix("torch.")} for t in parts(example)]
    several = {"samples": samples, "names": list(example.names)} if isinstance(example, Bundle) else {}
    return {
        "schema": SCHEMA,
        "sample_shape": samples[0]["shape"],
        "sample_dtype": samples[0]["dtype"],
        **several,
        "records": list(records),
        "codes": dict(sorted(codes.items())),
    }


def load(out: str | Path, factory: Callable[[], nn.Module] | str | Path | None = None) -> nn.Module:
    """Return the compressed module, in evaluation mode, ready to train on.

    `out` is a folder that easycompress wrote, `factory` what makes the original module, or the .pt2 or .onnx file that
    it was. Without it the module comes from OUT/model.pt2, which holds its own graph: it is there when the original was
    such a file, or with `also="pt2"`. Coded weights are dense again, on their grid; activations are float. No pickle is
    read. Raises BadInput when folder and factory don't fit.
    """
    folder = Path(out)
    if factory is None:
        if not (folder / PROGRAM).is_file():
            raise BadInput(f"{folder}: holds no {PROGRAM}; give factory=, which makes the original module")
        return read_exported(folder / PROGRAM, trust_pickle=False)[0].eval()
    record = read_json(folder / "record.json")
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise BadInput(
            f"{folder}/record.json: schema {schema!r}, this version reads {SCHEMA}; compress the model again with it"
        )
    try:
        tensors = load_file(str(folder / "model.safetensors"))
    except (SafetensorError, OSError) as error:
        raise BadInput(
            f"{folder}/model.safetensors: can't be read ({one_line(error)}); give a folder that easycompress finished"
        ) from error
    make = factory if callable(factory) else partial(_original, Path(factory), record)
    return rebuild(make().float().eval(), record, tensors, str(folder))


def _original(path: Path, record: dict[str, Any]) -> nn.Module:
    """Return the module of the .pt2 or .onnx file that was compressed, for samples as `record` has them."""
    return load_model(path, None, path.parent, trust_pickle=False, sample=_example(record)).model


def rebuild(model: nn.Module, record: dict[str, Any], tensors: dict[str, Tensor], where: str) -> nn.Module:
    """Replay `record` on a fresh `model` and fill in `tensors`. Raises BadInput, beginning with `where`."""
    try:
        example = _example(record)
        plain_weights(model)
        model = as_tensors(model, example)
        for entry in record["records"]:
            model = technique_named(entry["kind"]).replay(model, entry["record"], example)
        state = dict(tensors)
        for name, entry in record["codes"].items():
            prefix = f"{name}."
            arrays = {key.removeprefix(prefix): state.pop(key) for key in tensors if key.startswith(prefix)}
            state[name] = read_code(entry["form"], entry["meta"], arrays).dense()
        model.load_state_dict(state)
    except (EasyCompressError, RuntimeError, LookupError, AttributeError, TypeError, ValueError) as error:
        # A module of another architecture fails wherever the replay first meets a difference.
        raise BadInput(
            f"{where}: doesn't fit this factory's module ({type(error).__name__}: {one_line(error, 200)}); "
            "give the factory of the model that was compressed"
        ) from error
    return model.eval()


def _example(record: dict[str, Any]) -> Inputs:
    """Return two samples of zeros that are shaped as the record says."""

    def zeros(shape: list[int], dtype: str) -> Tensor:
        if math.prod(shape) > MOST_SAMPLE or dtype not in DTYPES:
            raise ValueError(f"samples of shape {shape} and type {dtype!r}"[:120])
        return torch.zeros(2, *shape, dtype=getattr(torch, dtype))

    if "samples" not in record:
        return zeros(record["sample_shape"], record["sample_dtype"])
    tensors = tuple(zeros(sample["shape"], sample["dtype"]) for sample in record["samples"])
    return Bundle(tensors, tuple(record["names"]))
