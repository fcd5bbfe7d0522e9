"""What every rival is given, in the folder RIVAL_TASK: a trained model, its float file and its data.

`float.onnx` is the model as PyTorch exports it, `SPLIT-NAME.npy` the inputs of a split (N, ...), `SPLIT-labels.npy` the
classes (N,), `task.json` the model's name and where its class is. Needs numpy alone until `module` is called.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

HOME = Path(os.environ.get("RIVAL_TASK", "."))
FLOAT = str(HOME / "float.onnx")
ABOUT: dict[str, Any] = json.loads((HOME / "task.json").read_text()) if (HOME / "task.json").exists() else {}
CALIBRATION = 512
"""Training samples that a rival may calibrate with."""

Arrays = dict[str, np.ndarray[Any, Any]]


def arrays(split: str) -> tuple[Arrays, np.ndarray[Any, Any]]:
    """Return the inputs by name, each (N, ...), and the labels (N,) of train, validation or test."""
    inputs = {name: np.load(HOME / f"{split}-{name}.npy", mmap_mode="r") for name in ABOUT["inputs"]}
    return inputs, np.load(HOME / f"{split}-labels.npy")


def batches(split: str, size: int, most: int | None = None) -> Iterator[tuple[Arrays, np.ndarray[Any, Any]]]:
    """Yield (inputs, labels) of `size` samples each, of the first `most` samples."""
    inputs, labels = arrays(split)
    for begin in range(0, min(most or len(labels), len(labels)), size):
        part = slice(begin, begin + size)
        yield {name: np.array(values[part]) for name, values in inputs.items()}, labels[part]


def calibration(size: int = 32) -> Iterator[Arrays]:
    """Yield batches of training inputs to calibrate with."""
    return (inputs for inputs, _ in batches("train", size, CALIBRATION))


def accuracy(answer: Callable[[Arrays], np.ndarray[Any, Any]], split: str = "validation") -> float:
    """Return the share of samples, 0 to 1, whose largest score is the label's."""
    right = [answer(inputs).argmax(1) == labels for inputs, labels in batches(split, 250)]
    return float(np.concatenate(right).mean())


def module() -> nn.Module:
    """Return the trained model in evaluation mode, float32."""
    if ABOUT["factory"] is None:
        from transformers import AutoModelForSequenceClassification  # noqa: PLC0415 - not every rival has it

        return AutoModelForSequenceClassification.from_pretrained(ABOUT["weights"]).float().eval()
    from safetensors.torch import load_file  # noqa: PLC0415 - some rivals need numpy alone

    path, _, name = ABOUT["factory"].rpartition(":")
    spec = importlib.util.spec_from_file_location("zoo_models", path)
    assert spec is not None
    assert spec.loader is not None
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    net: nn.Module = getattr(models, name)()
    net.load_state_dict(load_file(ABOUT["weights"]))
    return net.float().eval()


def scores(net: nn.Module) -> nn.Module:
    """Return `net` as a module from plain tensors, in the order of task.json, to scores (N, classes)."""
    import torch  # noqa: PLC0415 - some rivals need numpy alone

    names = tuple(ABOUT["inputs"])

    class Plain(torch.nn.Module):
        """From tensors to one tensor."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            """Return the scores of a batch."""
            answer = self.net(**dict(zip(names, values, strict=True)))
            return answer.logits  # type: ignore[no-any-return]

    return Plain().eval() if ABOUT["factory"] is None else net


def splits() -> dict[str, Any]:
    """Return the data as `easycompress --data task.py:splits` takes them."""
    import torch  # noqa: PLC0415 - some rivals need numpy alone

    made = {}
    for split in ("train", "validation", "test"):
        inputs, labels = arrays(split)
        tensors = {name: torch.from_numpy(np.array(values)) for name, values in inputs.items()}
        made[split] = (tensors if len(tensors) > 1 else next(iter(tensors.values())), torch.from_numpy(labels))
    return made
