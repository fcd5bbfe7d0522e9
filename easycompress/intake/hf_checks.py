"""What a Hugging Face folder may ask for beside weights, checked before its library reads it; and no network."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from easycompress.core.errors import BadInput
from easycompress.core.files import read_json
from easycompress.intake.archives import check_sizes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OFFLINE, SILENT = "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"
"""Switches of huggingface_hub: variables that it reads when it is imported, and names in its `constants`."""


def check_folder(path: Path, config: dict[str, Any]) -> None:
    """Raise BadInput where the folder asks for code or weights from elsewhere, or is no float model.

    `config` is its config.json: attention by a kernel of the Hub is code that would be fetched and run.
    """
    if (path / "adapter_config.json").is_file():
        raise BadInput(f"{path}: an adapter (adapter_config.json), no model; merge it into its model and save that")
    waiting: list[Any] = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        if not isinstance(part, dict):
            continue
        waiting += part.values()
        if part.get("quantization_config"):
            raise BadInput(f"{path}/config.json: quantized already (quantization_config); give the float model")
        for key, value in part.items():
            if key.endswith("_implementation") and any(mark in str(value) for mark in "/:@"):
                raise BadInput(f"{path}/config.json: {key} names code on the Hub, which is never run; take it out")
    for index in path.glob("*.index.json"):
        _check_index(index)
    for weights in path.glob("*.bin"):
        check_sizes(weights)


def _check_index(index: Path) -> None:
    content = read_json(index)
    files = content.get("weight_map") if isinstance(content, dict) else None
    names = list(files.values()) if isinstance(files, dict) else [None]
    for name in names:
        if not isinstance(name, str) or PurePosixPath(name.replace("\\", "/")).name != name or name in ("", ".", ".."):
            raise BadInput(f"{index}: names the weights {str(name)[:60]!r}, no file of this folder; save it again")


def without_network() -> contextlib.AbstractContextManager[None]:
    """Keep Hugging Face's libraries from the network and from telling anybody what they do, for a block."""
    return _switched_on(OFFLINE, SILENT)


def without_telemetry() -> contextlib.AbstractContextManager[None]:
    """Keep Hugging Face's libraries from telling more than what they fetch, for a block."""
    return _switched_on(SILENT)


@contextlib.contextmanager
def _switched_on(*names: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    constants = sys.modules.get("huggingface_hub.constants")
    known = {name: getattr(constants, name) for name in names if hasattr(constants, name)}
    for name in known:
        setattr(constants, name, True)
    try:
        yield
    finally:
        for name, value in known.items():
            setattr(constants, name, value)
        for name, text in before.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text
