"""Data of the Hugging Face Hub by name: the only form that uses the network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from easycompress.core.errors import BadInput, one_line
from easycompress.core.quiet import quiet
from easycompress.intake.handed import split_called, table_of
from easycompress.intake.hf_checks import without_telemetry
from easycompress.intake.tables import TABLE_SUFFIXES, Part
from easycompress.intake.vision import torchvision_hint

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""What a dataset is called on the Hugging Face Hub: `owner/name`, or `name` for the oldest."""

OTHER_SUFFIXES = (".npz", ".py", ".toml", ".txt", ".zip", ".gz", ".pt", ".npy", ".pkl")


def is_hub_name(spec: str) -> bool:
    """Tell whether `--data` may name data on the Hub: not a path, not a file of a known form."""
    known = (*TABLE_SUFFIXES, *OTHER_SUFFIXES)
    return HUB_NAME.fullmatch(spec) is not None and not spec.startswith(".") and Path(spec).suffix.lower() not in known


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
        with quiet("datasets", "huggingface_hub"), without_telemetry():
            found: Any = datasets.load_dataset(
                spec, download_config=datasets.DownloadConfig(max_retries=0), verification_mode="basic_checks"
            )
    except Exception as error:  # the network and the Hub fail in many ways
        hint = "" if "/" in spec else f"; {torchvision_hint(spec)}"
        raise BadInput(
            f"{not_here}{hint}; the Hugging Face Hub gives no such dataset: {one_line(error, 100)}"
        ) from error
    tables: dict[str, list[Part]] = {}
    for name, data in found.items():
        split = split_called(name)
        if split is not None and split not in tables:  # of several, such as MNLI's validation sets, the first
            tables[split] = [Part(Path(spec) / name, table_of(data, f"{where}: {name}"))]
    if not tables:
        raise BadInput(f"{where}: its splits are {', '.join(found)}; it needs any of train, validation, test")
    return tables
