"""The models that every rival gets, each in a folder of its own: see rival_scripts/task.py for what lies there."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.goals import minilm
from benchmarks.rivals_field import SCRIPTS
from benchmarks.zoo import MODELS as IMAGES
from benchmarks.zoo import load_task
from easycompress.artifact.onnx_export import export
from easycompress.artifact.slim import slim
from easycompress.core.inputs import bundled

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

SPLITS = ("train", "validation", "test")

BATCHES = {"lenet5": (1, 64), "resnet20": (1, 64), "minilm": (1, 4)}
"""Batch sizes that latency is measured at."""

Arrays = dict[str, np.ndarray[Any, Any]]


def task_folder(model: str, out: Path) -> Path:
    """Return where a model's task lies."""
    return out / "tasks" / model


def make_task(model: str, options: argparse.Namespace) -> Path:
    """Write a model's task and return its folder; what is there already stays. `plain.onnx` is the baseline's file."""
    folder = task_folder(model, options.out)
    if (folder / "float.onnx").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {"name": model, "factory": None, "weights": str(options.zoo.resolve() / "minilm_sst2")}
    if model == "minilm":
        net, given = minilm(options)
        splits = {name: ({k: v.numpy() for k, v in given[name][0].items()}, given[name][1].numpy()) for name in SPLITS}
        example = bundled({name: values[:2] for name, values in given["train"][0].items()})
    else:
        net = load_task(model, options).model
        flags = IMAGES[model]
        splits = {name: images(options.data / flags["data"], name, flags) for name in SPLITS}
        example = torch.from_numpy(splits["train"][0]["x"][:2])
        about["factory"] = f"{options.zoo.resolve()}/models.py:{model}"
        about["weights"] = str(options.zoo.resolve() / f"{model}.safetensors")
    about["inputs"] = list(splits["train"][0])
    (folder / "plain.onnx").write_bytes(slim(export(net, example)).SerializeToString())
    for name, (inputs, labels) in splits.items():
        for key, values in {**inputs, "labels": labels.astype(np.int64)}.items():
            np.save(folder / f"{name}-{key}.npy", values)
    (folder / "task.json").write_text(json.dumps(about, indent=1) + "\n")
    script = SCRIPTS.resolve() / "export_float.py"
    environment = {**os.environ, "RIVAL_TASK": str(folder.resolve())}
    subprocess.run([sys.executable, str(script)], env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return folder


def images(path: Path, split: str, flags: dict[str, Any]) -> tuple[Arrays, np.ndarray[Any, Any]]:
    """Return the normalised images {"x": (N, C, H, W)} and labels (N,) of an npz or a folder of parquet files."""
    if path.is_dir():
        import pyarrow.parquet as pq  # noqa: PLC0415 - for one model only
        from PIL import Image  # noqa: PLC0415 - the same

        table = pq.read_table(path / f"{split}.parquet").to_pydict()
        x = np.stack([np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("RGB")) for image in table["image"]])
        y = np.array(table["label"])
    else:
        arrays, short = np.load(path), {"validation": "val"}.get(split, split)
        x, y = arrays[f"x_{short}"], arrays[f"y_{short}"]
    x = x[..., None] if x.ndim == 3 else x
    scaled = (x.astype(np.float32) / 255 - np.float32(flags["mean"])) / np.float32(flags["std"])
    return {"x": np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)}, y


def test_split(folder: Path) -> tuple[Arrays, np.ndarray[Any, Any]]:
    """Return the inputs and labels that files are judged on."""
    names = json.loads((folder / "task.json").read_text())["inputs"]
    return {name: np.load(folder / f"test-{name}.npy") for name in names}, np.load(folder / "test-labels.npy")
