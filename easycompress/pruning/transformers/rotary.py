"""Rotary position embeddings: which module turns a head's dimensions, and its frequencies without some of them.

Dimension i of a query or key is turned together with dimension i + size / 2, at frequency theta^(-2i / size). All
attentions that one module serves have to keep the same pairs. A configuration says the size of a head and theta, from
which a library computes the frequencies anew: that gives the kept ones where their pairs are evenly spaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from easycompress.pruning.transformers.configuration import Settings, changed, configured

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FREQUENCIES = "inv_freq"
BUFFERS = {FREQUENCIES, f"original_{FREQUENCIES}"}
"""What a module of this kind holds, one number a pair; the second is what the first is put back to."""

RECOMPUTED = ("dynamic", "longrope")
"""Types whose forward computes the frequencies again, by the length of what it is given."""

CLOSE = 1e-5
"""Largest relative difference between a kept frequency and the one that a configuration gives: float32's is 1e-6."""


def nearest(model: nn.Module, name: str) -> list[str]:
    """Return the modules that may turn the heads of the attention `name`: those with the closest common parent."""
    known = [path for path, module in model.named_modules() if _turns(module)]
    parts = name.split(".")
    for depth in range(len(parts), -1, -1):
        prefix = "".join(f"{part}." for part in parts[:depth])
        near = [path for path in known if path.startswith(prefix)]
        if near:
            return near
    return []


def understood(module: nn.Module, size: int) -> bool:
    """Tell whether a module turns all dimensions of heads of `size`, with frequencies that stay what they are."""
    values = getattr(module, FREQUENCIES, None)
    kind = getattr(module, "rope_type", "default")
    return (
        isinstance(values, Tensor)
        and values.dim() == 1
        and 2 * len(values) == size
        and {name for name, _ in module.named_buffers()} <= BUFFERS
        and isinstance(kind, str)
        and not any(word in kind for word in RECOMPUTED)
    )


@torch.no_grad()
def keep_pairs(module: nn.Module, pairs: Sequence[int]) -> None:
    """Leave only the frequencies of `pairs`, places among those there are."""
    for name in BUFFERS:
        values = getattr(module, name, None)
        if isinstance(values, Tensor):
            setattr(module, name, values[torch.tensor(list(pairs), dtype=torch.long)].clone())


def dimensions(pairs: Tensor, size: int) -> Tensor:
    """Return the dimensions (..., 2 x count) of heads of `size` that the pairs (..., count) consist of."""
    return torch.cat([pairs, pairs + size // 2], dim=-1)


def spaced(pairs: int, count: int) -> Iterator[tuple[int, ...]]:
    """Yield every way to keep `count` of `pairs` pairs at one distance from each other."""
    widest = (pairs - 1) // (count - 1) if count > 1 else 1
    for step in range(1, widest + 1):
        for first in range(pairs - step * (count - 1)):
            yield tuple(range(first, first + step * count, step))


def rotary_changes(model: nn.Module, pairs: Sequence[int], size: int) -> Settings | None:
    """Return the settings from which the library computes the frequencies of evenly spaced `pairs` of heads of `size`.

    theta^(-2 (a + b j) / size) = theta'^(-2j / size') / factor with theta' = theta^(b size' / size) and
    factor = theta^(2a / size). None where no configuration says theta in the way known here.
    """
    found = configured(model)
    old: Any = getattr(found[1].config, "rope_parameters", None) if found is not None else None
    if found is None or not isinstance(old, dict) or old.get("rope_type", "default") != "default":
        return None
    theta = old.get("rope_theta")
    if not isinstance(theta, (int, float)):
        return None
    first, step = pairs[0], pairs[1] - pairs[0] if len(pairs) > 1 else 1
    new = old | {"rope_theta": float(theta ** (step * 2 * len(pairs) / size))}
    if first:
        new |= {"rope_type": "linear", "factor": float(theta ** (2 * first / size))}
    return {"rope_parameters": new}


def computes(model: nn.Module, path: str, settings: Settings, wanted: Tensor) -> bool:
    """Tell whether the module at `path`, made from the configuration with `settings`, has the frequencies `wanted`."""
    found = configured(model)
    if found is None:
        return False
    kind: Any = type(model.get_submodule(path))
    try:
        made = getattr(kind(changed(found[1].config, settings)), FREQUENCIES)
    except Exception:  # noqa: BLE001 - a class that can't be built this way computes nothing that is known
        return False
    return isinstance(made, Tensor) and made.shape == wanted.shape and torch.allclose(made, wanted, rtol=CLOSE, atol=0)


def _turns(module: nn.Module) -> bool:
    return hasattr(module, FREQUENCIES) or "rotary" in type(module).__name__.lower()
