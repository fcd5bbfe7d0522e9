"""Models and data for the benchmarks: the demo's, made in seconds, or trained ones with `--zoo` and `--data`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easycompress.assemble import make_the_task
from easycompress.core.progress import Silent
from easycompress.demo import make_demo
from easycompress.intake.config import make_request

if TYPE_CHECKING:
    import argparse

    from easycompress.core.task import Task

MNIST = {"data": "mnist.npz", "mean": (0.1307,), "std": (0.3081,)}
CIFAR = {"data": "cifar10", "mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
MODELS: dict[str, dict[str, Any]] = {"lenet300": MNIST, "lenet5": MNIST, "resnet20": CIFAR, "vgg16": CIFAR}
SENTENCES = {"folder": "minilm_sst2", "data": "sst2", "columns": "text,label"}
DEMO = "digits"


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add --zoo, --data and --models; without a zoo the demo's model is what there is."""
    parser.add_argument("--zoo", type=Path, help="folder of models.py and trained weights")
    parser.add_argument("--data", type=Path, help="folder of mnist.npz and cifar10/")
    parser.add_argument("--models", nargs="+", help=f"of {', '.join(MODELS)}, with --zoo and --data")


def chosen(options: argparse.Namespace, usual: tuple[str, ...] = ("lenet5", "resnet20")) -> list[str]:
    """Return the models to run, `usual` unless said."""
    if options.zoo is None or options.data is None:
        if options.models:
            raise SystemExit(f"--models {' '.join(options.models)}: give --zoo and --data too, where they are")
        return [DEMO]
    return list(options.models or usual)


def locate(name: str, options: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Return a model's file and the flags that go with it."""
    if name == DEMO:
        folder = Path(tempfile.gettempdir()) / "easycompress-benchmark-demo"
        make_demo(folder, Silent())
        return folder / "model.pt", {}
    zoo, data = options.zoo.resolve(), options.data.resolve()
    if name == "minilm":
        return zoo / SENTENCES["folder"], {"data": str(data / SENTENCES["data"]), "columns": SENTENCES["columns"]}
    flags = dict(MODELS[name])
    flags |= {"factory": f"{zoo}/models.py:{name}", "data": str(data / flags["data"])}
    return zoo / f"{name}.safetensors", flags


def load_task(name: str, options: argparse.Namespace) -> Task:
    """Return a model with its data as a task."""
    path, flags = locate(name, options)
    request, base = make_request(str(path), flags | {"target": "10x", "max_drop": "1%"})
    return make_the_task(path, request, base, (None, None, None))
