"""Training state on disk without pickle: tensors in safetensors, the rest as JSON in its header."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from easycompress.core.files import write_bytes
from easycompress.core.ledger import spending
from easycompress.core.plain import read_json_text

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a detached, contiguous copy of a module's parameters and buffers."""
    return {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}


@spending("checkpoints")
def save_tensors(path: Path, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
    """Write tensors and JSON-able `meta` atomically."""
    write_bytes(path, save({n: t.contiguous() for n, t in tensors.items()}, metadata={"meta": json.dumps(meta)}))


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Read what save_tensors wrote; None when the file is absent or unreadable, so that the work is done again."""
    if not path.exists():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            meta = read_json_text((file.metadata() or {}).get("meta", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, meta  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError):
        return None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimizer's tensors by `index.field`, index in the order of its parameters."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{field}": value for index, fields in state.items() for field, value in fields.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Put back what optimizer_tensors returned."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        index, _, field = name.partition(".")
        state.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
