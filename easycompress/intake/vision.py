"""torchvision's data by name, where it lies on this machine already: nothing is downloaded."""

from __future__ import annotations

import difflib
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from easycompress.core.errors import BadInput, one_line
from easycompress.core.task import Split
from easycompress.intake.images import Picture, from_array, load_pictures
from easycompress.intake.objects import as_targets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from easycompress.intake.images import Array

SPLITS = ("train", "validation", "test")


class Published(NamedTuple):
    """A set of torchvision: its class, the file or folder that it keeps in its root, and what chooses each split."""

    kind: str
    inner: str
    splits: Mapping[str, Mapping[str, object]]


def _flagged(**more: object) -> dict[str, dict[str, object]]:
    return {"train": {"train": True, **more}, "test": {"train": False, **more}}


def _named(*names: str | None, **more: object) -> dict[str, dict[str, object]]:
    """Return what chooses train, validation and test where the class takes `split`; None: there is none such."""
    return {ours: {"split": name, **more} for ours, name in zip(SPLITS, names, strict=True) if name is not None}


EMNIST = ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")

TORCHVISION = {
    "mnist": Published("MNIST", "MNIST", _flagged()),
    "fashionmnist": Published("FashionMNIST", "FashionMNIST", _flagged()),
    "kmnist": Published("KMNIST", "KMNIST", _flagged()),
    "qmnist": Published("QMNIST", "QMNIST", _flagged()),
    **{f"emnist{split}": Published("EMNIST", "EMNIST", _flagged(split=split)) for split in EMNIST},
    "usps": Published("USPS", "usps.bz2", _flagged()),
    "cifar10": Published("CIFAR10", "cifar-10-batches-py", _flagged()),
    "cifar100": Published("CIFAR100", "cifar-100-python", _flagged()),
    "svhn": Published("SVHN", "train_32x32.mat", _named("train", None, "test")),
    "stl10": Published("STL10", "stl10_binary", _named("train", None, "test")),
    "fer2013": Published("FER2013", "fer2013", _named("train", None, "test")),
    "gtsrb": Published("GTSRB", "gtsrb/GTSRB", _named("train", None, "test")),
    "flowers102": Published("Flowers102", "flowers-102", _named("train", "val", "test")),
    "food101": Published("Food101", "food-101", _named("train", None, "test")),
    "dtd": Published("DTD", "dtd/dtd", _named("train", "val", "test")),
    "fgvcaircraft": Published("FGVCAircraft", "fgvc-aircraft-2013b", _named("train", "val", "test")),
    "oxfordiiitpet": Published("OxfordIIITPet", "oxford-iiit-pet", _named("trainval", None, "test")),
    "stanfordcars": Published("StanfordCars", "stanford_cars/devkit", _named("train", None, "test")),
    "country211": Published("Country211", "country211", _named("train", "valid", "test")),
    "renderedsst2": Published("RenderedSST2", "rendered-sst2", _named("train", "val", "test")),
    "clevrclassification": Published("CLEVRClassification", "clevr/CLEVR_v1.0", _named("train", "val", None)),
    "imagenette": Published("Imagenette", "imagenette2", _named("train", "val", None)),
    "imagenette320": Published("Imagenette", "imagenette2-320", _named("train", "val", None, size="320px")),
    "imagenette160": Published("Imagenette", "imagenette2-160", _named("train", "val", None, size="160px")),
    "pcam": Published("PCAM", "pcam/camelyonpatch_level_2_split_train_x.h5", _named("train", "val", "test")),
}
"""Every set of classes whose constructor takes a root and a split. Those without a split could only be trained on."""


def torchvision_name(spec: str) -> str | None:
    """Return the name in TORCHVISION for what `--data` says, None where it is none: FashionMNIST, fashion-mnist."""
    name = re.sub(r"[-_]", "", spec.lower())
    return name if name in TORCHVISION else None


def torchvision_hint(spec: str) -> str:
    """Return the end of an error text for a name that isn't known: the nearest one, and all."""
    near = difflib.get_close_matches(re.sub(r"[-_]", "", spec.lower()), TORCHVISION, n=1)
    listed = ", ".join(TORCHVISION)
    return f"{f'did you mean {near[0]}? ' if near else ''}torchvision's sets are {listed}"


def torchvision_in(folder: Path, where: str) -> tuple[str, Path] | None:
    """Return the name and the root of torchvision's data that a folder holds, or is the inner folder of; None of none.

    Raises BadInput where it is that of several.
    """
    for root, inner in ((folder, ""), (folder.absolute().parent, folder.absolute().name)):
        held = [
            name
            for name, published in TORCHVISION.items()
            if (root / published.inner).exists() and (not inner or published.inner.partition("/")[0] == inner)
        ]
        if len(held) > 1:
            raise BadInput(
                f"{where}: holds {', '.join(held)}; name one, as --data {held[0]}, and keep its files beside the model "
                "or in a folder `data` there"
            )
        if held:
            return held[0], root
    return None


def torchvision_splits(
    name: str, roots: list[Path], where: str, prepare: Callable[[list[Array]], Tensor] | None = None
) -> dict[str, Split]:
    """Read torchvision's data from the first of `roots` that holds it; `prepare` as in images.load_pictures.

    Raises BadInput, saying how to get it.
    """
    from torchvision import datasets  # noqa: PLC0415 - slow to import, and only this form needs it

    kind, inner, splits = TORCHVISION[name]
    problem = f"not under {', '.join(map(str, roots))}"
    for root in (root for root in roots if (root / inner).exists()):
        try:
            sets = {split: getattr(datasets, kind)(root, **chosen) for split, chosen in splits.items()}
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            problem = f"{root}: {one_line(error, 120)}"
            continue
        if prepare is None and all(_labels(data) is not None for data in sets.values()):
            return {split: _whole(data, f"{where}: {split}") for split, data in sets.items()}
        return _one_by_one(sets, where, prepare)
    raise BadInput(f"{where}: {problem}; {_remedy(name, getattr(datasets, kind))}")


def _remedy(name: str, made: Any) -> str:  # noqa: ANN401 - a class of torchvision
    """Return how to get a set."""
    kind, inner, splits = TORCHVISION[name]
    taken = inspect.signature(made).parameters.values()
    if not any(p.name == "download" or p.kind is inspect.Parameter.VAR_KEYWORD for p in taken):
        return f"torchvision can't fetch it: its documentation of {kind} says which files belong into {inner}"
    chosen = next(iter(splits.values()))
    rest = "".join(f", {key}={value!r}" for key, value in chosen.items() if key not in ("train", "split"))
    if "train" in chosen:
        rest = f", split={chosen['split']!r}{rest}" if "split" in chosen else rest
        call = f"{kind}('data'{rest}, download=True)"
    else:
        names = tuple(options["split"] for options in splits.values())
        call = f"[{kind}('data', split=s{rest}, download=True) for s in {names}]"
    return f'get it by python -c "from torchvision.datasets import {kind}; {call}"'


def _labels(data: Any) -> Any:  # noqa: ANN401 - torchvision is untyped here
    """Return the labels (N,) of a set that holds all its images as one array, None of another."""
    labels = getattr(data, "targets", getattr(data, "labels", None))
    pixels = getattr(data, "data", None)
    if labels is None or not isinstance(pixels, (np.ndarray, torch.Tensor)) or np.ndim(labels) != 1:
        return None
    return labels


def _whole(data: Any, where: str) -> Split:  # noqa: ANN401 - torchvision is untyped here
    pixels = from_array(torch.as_tensor(data.data).numpy(), where)
    return Split(pixels, as_targets(_labels(data), where))


def _one_by_one(
    sets: Mapping[str, Any], where: str, prepare: Callable[[list[Array]], Tensor] | None
) -> dict[str, Split]:
    """Read sets that open an image when asked for it, with its label."""
    labels = {split: [0] * len(data) for split, data in sets.items()}

    def opener(split: str, place: int) -> Callable[[], Any]:
        def opened() -> Any:  # noqa: ANN401 - an image
            image, label = sets[split][place]
            labels[split][place] = int(label)
            return image

        return opened

    pictures = {
        split: [Picture(opener(split, place), f"{split} sample {place}") for place in range(len(data))]
        for split, data in sets.items()
    }
    tensors = load_pictures(pictures, where, prepare)
    return {split: Split(inputs, torch.tensor(labels[split])) for split, inputs in tensors.items()}


def default_roots(base: Path) -> list[Path]:
    """Return where torchvision's data is looked for: the folder of the model or toml, its `data`, torch's own cache."""
    return [base, base / "data", Path(torch.hub.get_dir()) / "datasets"]
