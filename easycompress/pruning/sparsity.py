"""Training that drives batch norm scales towards zero, so that what `bn-scale` removes hardly matters.

Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017, equation 1.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

from easycompress.pruning.importance import BATCH_NORM

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from easycompress.pruning.graph import ChannelGroup


def scales_of(groups: Sequence[ChannelGroup]) -> list[Tensor]:
    """Return the scales (C,) of the batch norms on the groups' channels, each once."""
    found = {}
    for group in groups:
        for member in group.members:
            if isinstance(member.module, BATCH_NORM) and member.module.weight is not None:
                found[member.name] = member.module.weight
    return list(found.values())


@contextlib.contextmanager
def shrinking(scales: Sequence[Tensor], sparsity: float) -> Iterator[None]:
    """Inside the block every gradient of a scale has `sparsity` x sign(scale) added: the loss has sparsity x |scale|.

    It is the subgradient that the paper takes, and it reaches whatever loop trains the scales.
    """
    handles = []
    for scale in scales:
        trained = scale.requires_grad
        scale.requires_grad_(True)  # noqa: FBT003 - a frozen tensor takes no hook; training frees it anyway
        penalised = functools.partial(_penalised, scale, sparsity)
        handles.append(scale.register_hook(penalised))  # type: ignore[no-untyped-call]  # torch's own signature
        scale.requires_grad_(trained)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _penalised(scale: Tensor, sparsity: float, gradient: Tensor) -> Tensor:
    return gradient + sparsity * scale.detach().sign()
