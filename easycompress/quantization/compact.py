"""Linear layers that keep their weights in blocks: what weight-only quantization makes of a model too large to copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress.quantization.blocks import Blocks, packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping


class BlockLinear(nn.Module):
    """y = x W^T + b with W (N, K) in blocks, dense only while it is read.

    Gradients flow to the inputs and the bias; the levels are fixed. `levels` (N, K' x bits / 8) uint8 with K' = K
    filled up to whole blocks, `scale` (N, K' / block) float32, `zero` the same in uint8 where blocks aren't symmetric.
    """

    levels: Tensor
    scale: Tensor
    zero: Tensor | None
    bias: nn.Parameter | None

    def __init__(self, blocks: Blocks, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.out_features, self.in_features = len(blocks.scale), blocks.inputs
        self.bits, self.block, self.symmetric = blocks.bits, blocks.block, blocks.symmetric
        stored = _flat(packed(blocks.levels, blocks.bits))
        self.register_buffer("levels", stored.reshape(self.out_features, -1))
        self.register_buffer("scale", blocks.scale)
        self.register_buffer("zero", None if blocks.symmetric else blocks.zero)
        self.register_parameter("bias", bias)

    def blocks(self) -> Blocks:
        """Return the weight as it is stored."""
        middle = 2 ** (self.bits - 1)
        zero = torch.full_like(self.scale, middle, dtype=torch.uint8) if self.zero is None else self.zero
        levels = unpacked(self.levels, self.bits)
        return Blocks(levels, zero, self.scale, self.in_features, self.bits, self.block, self.symmetric)

    @property
    def weight(self) -> Tensor:
        """The dense float32 weight (N, K), made anew each time."""
        return self.blocks().dense()

    @property
    def stored_levels(self) -> Tensor:
        """The levels as a file holds them: (K, N), `bits` each, flat bytes."""
        return _flat(packed(self.blocks().columns(), self.bits))

    @property
    def stored_scale(self) -> Tensor:
        """The scales as a file holds them: (K' / block, N)."""
        return self.scale.t()

    @property
    def stored_zero(self) -> Tensor:
        """The zero points as a file holds them: (K' / block, N), `bits` each, flat bytes."""
        return _flat(packed(self.blocks().zeros(), self.bits))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (..., N) of (..., K)."""
        return functional.linear(inputs, self.weight, self.bias)


def _flat(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def put_blocks(model: nn.Module, blocks: Mapping[str, Blocks]) -> nn.Module:
    """Put a BlockLinear in the place of every linear layer whose weight is among `blocks`, by the weight's name.

    Other modules with the same weight, a table tied to the last layer, get the dense one as a parameter of their own.
    The model itself must not be the layer.
    """
    for name, block in blocks.items():
        weight = model.get_parameter(name)
        every = list(model.named_modules(remove_duplicate=False))
        tied = {path: module for path, module in every if getattr(module, "weight", None) is weight}
        compact = {module: BlockLinear(block, module.bias) for module in tied.values() if isinstance(module, nn.Linear)}
        for path, module in tied.items():
            if module in compact:
                parent, _, leaf = path.rpartition(".")
                setattr(model.get_submodule(parent), leaf, compact[module])
            else:
                module.weight = nn.Parameter(block.dense())
    return model


def empty_blocks(layer: nn.Linear, *, bits: int, block: int, symmetric: bool) -> Blocks:
    """Return blocks of zeros for a layer's weight: the values come with a state dict."""
    rows, count = layer.out_features, -(-layer.in_features // block)
    levels = torch.zeros(rows, count * block, dtype=torch.uint8)
    zero, scale = torch.zeros(rows, count, dtype=torch.uint8), torch.ones(rows, count)
    return Blocks(levels, zero, scale, layer.in_features, bits, block, symmetric)
