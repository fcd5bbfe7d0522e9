"""Weights in blocks along their inputs, each with its own scale: the arithmetic, on tensors alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from easycompress.codes.affine import TINY
from easycompress.core.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

BYTE = 8

SLICE = 1 << 22
"""Weights that are rounded at a time: what that takes on the way is several times as large."""

SHRUNK = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Shares of a block's range that are tried: with 4 bits clipping the largest value often costs less than it saves."""


@dataclass(frozen=True)
class Blocks:
    """w[n, k] = (levels[n, k] - zero[n, b]) x scale[n, b] with b = k // block.

    `levels` (N, B x block) uint8 in 0..2^bits - 1, of which `inputs` columns count; `zero` (N, B) uint8, the middle of
    the levels everywhere where the code is `symmetric`; `scale` (N, B) float32.
    """

    levels: Tensor
    zero: Tensor
    scale: Tensor
    inputs: int
    bits: int
    block: int
    symmetric: bool

    def dense(self) -> Tensor:
        """Return the float32 weight, (N, inputs)."""
        rows, count = self.scale.shape
        weight = self.levels.reshape(rows, count, self.block).float()
        weight.sub_(self.zero[..., None]).mul_(self.scale[..., None])
        return weight.reshape(rows, -1)[:, : self.inputs].contiguous()

    def columns(self) -> Tensor:
        """Return the levels as the operator reads them, (inputs, N), one number a byte: signed where symmetric."""
        return self._stored(self.levels[:, : self.inputs])

    def zeros(self) -> Tensor:
        """Return the zero points as the operator reads them, (B, N), one number a byte."""
        return self._stored(self.zero)

    def _stored(self, values: Tensor) -> Tensor:
        signed = values.to(torch.int16) - (2 ** (self.bits - 1) if self.symmetric else 0)
        stored: Tensor = (signed & (2**self.bits - 1)).to(torch.uint8)
        return stored.t().contiguous()


def packed(values: Tensor, bits: int) -> bytes:
    """Return numbers of one byte each in `bits` each, in order, the earlier of two in the lower half of a byte."""
    flat = values.flatten()
    if bits == BYTE:
        return bytes(flat.numpy().tobytes())
    flat = functional.pad(flat, (0, len(flat) % 2))
    return bytes((flat[0::2] | (flat[1::2] << bits)).numpy().tobytes())


def unpacked(stored: Tensor, bits: int) -> Tensor:
    """Return the numbers, one a byte, of rows (N, bytes) that hold them as `packed` orders them."""
    if bits == BYTE:
        return stored
    return torch.stack([stored & 2**bits - 1, stored >> bits], -1).reshape(len(stored), -1)


def quantize_blocks(weight: Tensor, *, bits: int, block: int, symmetric: bool, name: str = "a weight") -> Blocks:
    """Return `weight` (N, K) rounded to the nearest of 2^bits levels a block of `block` inputs.

    Symmetric: the level -2^(bits - 1) is the value of largest magnitude with its sign, so that no level is lost, or
    some smaller value where clipping the largest makes the block's squared error smaller. Else the levels reach from
    the least to the largest value, zero among them. The last block is filled up with zeros. Raises BadInput with the
    tensor's `name` on NaN and infinity.
    """
    inputs = weight.shape[1]
    if not torch.isfinite(weight.detach()).all():
        raise BadInput(f"{name} holds NaN or infinity, so it can't be quantized; repair the checkpoint")
    slices = torch.split(weight.detach(), max(1, SLICE // max(1, inputs)))
    made = [_levels(part.float(), bits, block, symmetric=symmetric) for part in slices]
    levels, zero, scale = (torch.cat(each) for each in zip(*made, strict=True))
    return Blocks(levels, zero, scale, inputs, bits, block, symmetric)


def _levels(weight: Tensor, bits: int, block: int, *, symmetric: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return levels, zero points and scales of some rows."""
    rows, inputs = weight.shape
    values = functional.pad(weight, (0, -inputs % block)).reshape(rows, -1, block)
    top, middle = 2**bits - 1, 2 ** (bits - 1)
    if symmetric:
        scale = _least_error(values, middle)
        zero = torch.full_like(scale, middle)
    else:
        least, most = values.amin(-1, keepdim=True).clamp(max=0), values.amax(-1, keepdim=True).clamp(min=0)
        scale = _usable((most - least) / top)
        zero = torch.round(-least / scale).clamp(0, top)
    levels = (torch.round(values / scale) + zero).clamp(0, top)
    return levels.to(torch.uint8).reshape(rows, -1), zero.to(torch.uint8)[..., 0], scale[..., 0].contiguous()


def _least_error(values: Tensor, middle: int) -> Tensor:
    """Return for each block (..., block) that scale among SHRUNK whose rounding has the least squared error."""
    largest = _usable(values.gather(-1, values.abs().argmax(-1, keepdim=True)) / -middle)
    best, least = largest, torch.full_like(largest, torch.inf)
    for share in SHRUNK:
        scale = _usable(largest * share)
        rounded = torch.round(values / scale).clamp(-middle, middle - 1) * scale
        error = (rounded - values).square().sum(-1, keepdim=True)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best


def _usable(scale: Tensor) -> Tensor:
    """Return scales with 1 where a block is zero, or so small that its scale has lost its precision."""
    return torch.where(scale.abs() >= TINY, scale, torch.ones_like(scale))
