"""What a run depends on, so that another one is not taken for it: flags, and hashes of model and data."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch

from easycompress.core.files import sha256
from easycompress.core.inputs import parts
from easycompress.technique import checksum

if TYPE_CHECKING:
    from easycompress.core.request import Request
    from easycompress.core.task import Split
    from easycompress.prepare import Prepared


def flags_of(request: Request) -> dict[str, Any]:
    """Return the flags that a run's course depends on."""
    keys = (
        "objective", "target", "max_drop", "min_quality", "format", "budget", "backend", "batch", "threads", "certify",
        "seed", "split_seed", "repeats", "augment", "metric", "loss", "mean", "std", "recipe",
        "search",
    )  # fmt: skip
    return request.model_dump(mode="json", include=set(keys))


def fingerprint(prepared: Prepared, request: Request) -> dict[str, Any]:
    """Return what the values of a journal depend on: the flags, and the SHA-256 of model and data."""
    data = prepared.task.data
    splits = {"train": data.train, "select": data.select, "report": data.report}
    hashes = {name: hash_of(split) for name, split in splits.items()}
    weights = {} if prepared.described is None else {"weights": checksum(prepared.task.model)}  # not in the file
    return flags_of(request) | {"model": sha256(prepared.baseline), "data": hashes} | weights


def hash_of(split: Split) -> str:
    """Return the SHA-256 of a split's inputs and targets."""
    targets = torch.empty(0) if split.targets is None else split.targets
    digest = hashlib.sha256()
    for tensor in (*parts(split.inputs), targets):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
