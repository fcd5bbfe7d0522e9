"""Trained models and data for the benchmarks: a folder with `zoo/` and `data/`, laid out as its README says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from easycompress.api import make_the_task
from easycompress.intake.config import make_request

if TYPE_CHECKING:
    import argparse

    from easycompress.core.task import Task

MNIST = {"data": "mnist.npz", "mean": (0.1307,), "std": (0.3081,)}
CIFAR = {"data": "cifar10", "mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
MODELS: dict[str, dict[str, Any]] = {"lenet300": MNIST, "lenet5": MNIST, "resnet20": CIFAR, "vgg16": CIFAR}


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add --zoo and --data."""
    parser.add_argument("--zoo", type=Path, default=Path("../shared/zoo"), help="folder of weights and models.py")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of mnist.npz and cifar10/")


def flags(name: str, zoo: Path, data: Path) -> dict[str, Any]:
    """Return the flags that go with a model of the zoo."""
    found = dict(MODELS[name])
    return found | {"factory": f"{zoo.resolve()}/models.py:{name}", "data": str(data.resolve() / found["data"])}


def load_task(name: str, zoo: Path, data: Path) -> Task:
    """Return a model of the zoo with its data as a task."""
    model = zoo.resolve() / f"{name}.safetensors"
    request, base = make_request(str(model), flags(name, zoo, data) | {"target": "10x", "max_drop": "1%"})
    return make_the_task(model, request, base, (None, None, None))
