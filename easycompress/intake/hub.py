"""Published data by name: torchvision's, where it lies on this machine, and Hugging Face's, by the network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from easycompress.core.errors import BadInput, one_line
from easycompress.core.quiet import quiet
from easycompress.core.task import Split
from easycompress.intake.images import from_array
from easycompress.intake.objects import as_targets
from easycompress.intake.tables import SPLIT_NAMES, TABLE_SUFFIXES, Part

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""What a dataset is called on the Hugging Face Hub: `owner/name`, or `name` for the oldest."""

OTHER_SUFFIXES = (".npz", ".py", ".toml", ".txt", ".zip", ".gz", ".pt", ".npy", ".pkl")

TORCHVISION = {
    "mnist": ("MNIST", "MNIST"),
    "fashionmnist": ("FashionMNIST", "FashionMNIST"),
    "kmnist": ("KMNIST", "KMNIST"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
}
"""Names of torchvision's data, each with its class and the folder that the class keeps in its root."""


def is_hub_name(spec: str) -> bool:
    """Tell whether `--data` may name data on the Hub: not a path, not a file of a known form."""
    known = (*TABLE_SUFFIXES, *OTHER_SUFFIXES)
    return HUB_NAME.fullmatch(spec) is not None and not spec.startswith(".") and Path(spec).suffix.lower() not in known


def torchvision_name(spec: str) -> str | None:
    """Return torchvision's name for what `--data` says, None where it is none: FashionMNIST, fashion-mnist."""
    name = re.sub(r"[-_]", "", spec.lower())
    return name if name in TORCHVISION else None


def torchvision_in(folder: Path) -> str | None:
    """Return the name of torchvision's data that a folder is the root of, None if of none."""
    return next((name for name, (_, inner) in TORCHVISION.items() if (folder / inner).is_dir()), None)


def torchvision_splits(name: str, roots: list[Path], where: str) -> dict[str, Split]:
    """Read torchvision's data from the first of `roots` that holds it. Raises BadInput, saying how to get it."""
    from torchvision import datasets  # noqa: PLC0415 - slow to import, and only this form needs it

    kind, inner = TORCHVISION[name]
    held = [root for root in roots if (root / inner).is_dir()]
    problem = f"not under {', '.join(map(str, roots))}"
    for root in held:
        try:
            sets = {split: getattr(datasets, kind)(root, train=split == "train") for split in ("train", "test")}
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            problem = f"{root}: {one_line(error, 120)}"
            continue
        return {
            split: Split(from_array(torch.as_tensor(data.data).numpy(), f"{where}: {split}"),
                         as_targets(data.targets, f"{where}: {split}"))
            for split, data in sets.items()
        }  # fmt: skip
    raise BadInput(
        f"{where}: {problem}; get it by python -c \"from torchvision.datasets import {kind}; {kind}('data', "
        f'download=True)"'
    )


def default_roots(base: Path) -> list[Path]:
    """Return where torchvision's data is looked for: the folder of the model or toml, its `data`, torch's own cache."""
    return [base, base / "data", Path(torch.hub.get_dir()) / "datasets"]


def hub_tables(spec: str, where: str, forms: str) -> dict[str, list[Part]]:
    """Fetch a dataset of the Hugging Face Hub, as tables by split.

    Raises BadInput where `datasets` isn't installed, there is no network or no such dataset; `forms` ends that text.
    """
    not_here = f"{where}: not found; --data takes {forms}"
    try:
        import datasets  # noqa: PLC0415 - an extra that takes a second to import, and only this form needs it
    except ImportError as error:
        raise BadInput(f"{not_here}; a dataset of the Hugging Face Hub needs pip install datasets") from error
    try:
        with quiet("datasets", "huggingface_hub"):
            found: Any = datasets.load_dataset(
                spec, download_config=datasets.DownloadConfig(max_retries=0), verification_mode="basic_checks"
            )
    except Exception as error:  # the network and the Hub fail in many ways
        raise BadInput(f"{not_here}; the Hugging Face Hub gives no such dataset: {one_line(error, 100)}") from error
    tables: dict[str, list[Part]] = {}
    for name, data in found.items():
        split = SPLIT_NAMES.get(re.split(r"[-_.]", name, maxsplit=1)[0].lower())
        if split is not None and split not in tables:  # of several, such as MNLI's validation sets, the first
            table = data.data.table.replace_schema_metadata(data.features.arrow_schema.metadata)
            tables[split] = [Part(Path(spec) / name, table)]
    if not tables:
        raise BadInput(f"{where}: its splits are {', '.join(found)}; it needs any of train, validation, test")
    return tables
