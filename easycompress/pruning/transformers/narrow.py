"""Attention modules that compute their head size from the model's width, in a form that keeps it when heads go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST_SCALE = 100.0
"""Swin v2 never multiplies cosines by more."""

FUSED = {"qkv", "proj", "attn_drop", "proj_drop"}
MAYBE = {"q_norm", "k_norm", "norm"}
"""What the parts of an attention with a fused projection are called."""

OUTSIDE = -100.0
"""What torchvision adds where two places of a shifted window weren't neighbours."""


class NarrowAttention(nn.Module):
    """torch.nn.MultiheadAttention with fewer heads than its width says, of the size they had.

    The tensors have the same names. `in_proj_weight` is (3 x heads x head_dim, width).
    """

    in_proj_weight: Tensor
    in_proj_bias: Tensor | None
    _qkv_same_embed_dim = False  # keeps torch's encoder off its fused kernel, which divides the width by the heads

    def __init__(self, full: nn.MultiheadAttention) -> None:
        super().__init__()
        self.in_proj_weight = full.in_proj_weight
        self.register_parameter("in_proj_bias", full.in_proj_bias)
        self.out_proj = full.out_proj
        self.embed_dim = full.embed_dim
        self.num_heads = full.num_heads
        self.head_dim = full.head_dim
        self.scale = full.head_dim**-0.5
        self.dropout = full.dropout
        self.batch_first = full.batch_first
        self.train(full.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,  # noqa: FBT001, FBT002 - the interface of the module it stands for
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,  # noqa: FBT001, FBT002 - the same
        is_causal: bool = False,  # noqa: ARG002, FBT001, FBT002 - the same: a hint beside the mask
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attention's output, shaped as `query`, and its weights where they are wanted.

        `query` (N, L, width), `key` and `value` (N, S, width), batch second without batch_first. Masks as in torch:
        `key_padding_mask` (N, S), `attn_mask` (L, S) or (N x heads, L, S); True or -inf is left out.
        """
        sides = [query, key, value]
        if not self.batch_first:
            sides = [side.transpose(0, 1) for side in sides]
        weights = self.in_proj_weight.chunk(3)
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            torch.unflatten(functional.linear(side, weight, bias), -1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for side, weight, bias in zip(sides, weights, biases, strict=True)
        )
        scores = q @ k.transpose(-2, -1) * self.scale
        if attn_mask is not None:
            mask = attn_mask if attn_mask.dim() == 2 else torch.unflatten(attn_mask, 0, (-1, self.num_heads))  # noqa: PLR2004
            scores = scores + _additive(mask, scores)
        if key_padding_mask is not None:
            scores = scores + _additive(key_padding_mask, scores)[:, None, None, :]
        share = functional.dropout(scores.softmax(-1), self.dropout, self.training)
        output: Tensor = self.out_proj((share @ v).transpose(1, 2).flatten(2))
        if not self.batch_first:
            output = output.transpose(0, 1)
        if not need_weights:
            return output, None
        return output, share.mean(1) if average_attn_weights else share


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """Return a mask as what is added to scores."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))


class NarrowWindows(nn.Module):
    """The forward of torchvision's shifted window attention, versions 1 and 2, with a head size of its own.

    It is mixed into the module's class (see `narrowed`), whose parameters and position bias it uses.
    """

    window_size: list[int]
    shift_size: list[int]
    num_heads: int
    head_dim: int
    scale: float
    attention_dropout: float
    dropout: float
    qkv: nn.Linear
    proj: nn.Linear
    get_relative_position_bias: Callable[[], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        """Return the attention within windows of maps (N, H, W, C), of the same shape."""
        batch, height, width, _ = x.shape
        down, across = self.window_size
        padded = functional.pad(x, (0, 0, 0, -width % across, 0, -height % down))
        full_height, full_width = padded.shape[1:3]
        shift = [
            0 if window >= side else step
            for window, side, step in zip(self.window_size, (full_height, full_width), self.shift_size, strict=True)
        ]
        if any(shift):
            padded = torch.roll(padded, shifts=(-shift[0], -shift[1]), dims=(1, 2))
        rows, columns = full_height // down, full_width // across
        windows = padded.reshape(batch, rows, down, columns, across, -1).transpose(2, 3)
        tokens = windows.reshape(batch * rows * columns, down * across, -1)
        scores, v = self._scores(tokens)
        scores = scores + self.get_relative_position_bias()
        if any(shift):
            mask = self._shift_mask(full_height, full_width, shift, scores)
            scores = torch.unflatten(scores, 0, (batch, rows * columns)) + mask[None, :, None]
            scores = scores.flatten(0, 1)
        share = functional.dropout(scores.softmax(-1), self.attention_dropout, self.training)
        mixed = self.proj((share @ v).transpose(1, 2).flatten(2))
        mixed = functional.dropout(mixed, self.dropout, self.training)
        maps = mixed.reshape(batch, rows, columns, down, across, -1).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        if any(shift):
            maps = torch.roll(maps, shifts=(shift[0], shift[1]), dims=(1, 2))
        return maps[:, :height, :width].contiguous()

    def _scores(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the products of queries and keys (B, heads, T, T), and the values (B, heads, T, head_dim)."""
        scale: Tensor | None = getattr(self, "logit_scale", None)
        bias: Tensor | None = self.qkv.bias
        if scale is not None and bias is not None:  # version 2 has no bias on keys
            queries, keys, values = bias.chunk(3)
            bias = torch.cat([queries, torch.zeros_like(keys), values])
        qkv = functional.linear(tokens, self.qkv.weight, bias)
        q, k, v = torch.unflatten(qkv, -1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        if scale is None:
            return q * self.scale @ k.transpose(-2, -1), v
        cosines = functional.normalize(q, dim=-1) @ functional.normalize(k, dim=-1).transpose(-2, -1)
        return cosines * scale.exp().clamp(max=LARGEST_SCALE), v

    def _shift_mask(self, height: int, width: int, shift: list[int], like: Tensor) -> Tensor:
        """Return (windows, T, T): 0 between places that were neighbours before the shift, OUTSIDE elsewhere."""
        regions = like.new_zeros((height, width))
        (down, across), (up, left) = self.window_size, shift
        bands = [(slice(0, -down), slice(-down, -up), slice(-up, None))]
        bands.append((slice(0, -across), slice(-across, -left), slice(-left, None)))
        for index, (rows, columns) in enumerate((r, c) for r in bands[0] for c in bands[1]):
            regions[rows, columns] = index
        regions = regions.reshape(height // down, down, width // across, across).transpose(1, 2)
        places = regions.reshape(-1, down * across)
        apart = places[:, None, :] != places[:, :, None]
        return torch.zeros_like(apart, dtype=like.dtype).masked_fill(apart, OUTSIDE)


class NarrowFused(nn.Module):
    """The forward of an attention made of a fused projection and nothing else (see `is_fused`), as timm writes it.

    It is mixed into the module's class (see `narrowed`): some of its versions take the width behind the heads for the
    width before them, or compute the scale from the size of a head.
    """

    num_heads: int
    head_dim: int
    scale: float
    qkv: nn.Linear
    proj: nn.Linear
    attn_drop: nn.Module

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,  # noqa: FBT001, FBT002 - the interface of the module it stands for
    ) -> Tensor:
        """Return the attention over `x` (N, L, width), shaped as it is; `attn_mask` as for torch's own attention."""
        parts = torch.unflatten(self.qkv(x), -1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        mixed = functional.scaled_dot_product_attention(
            self._through("q_norm", q),
            self._through("k_norm", k),
            v,
            attn_mask=attn_mask,
            dropout_p=getattr(self.attn_drop, "p", 0.0) if self.training else 0.0,
            is_causal=is_causal,
            scale=self.scale,
        )
        return self._through("proj_drop", self.proj(self._through("norm", mixed.transpose(1, 2).flatten(2))))

    def _through(self, name: str, x: Tensor) -> Tensor:
        """Return what a part makes of `x`, `x` itself where there is no such part."""
        part = getattr(self, name, None)
        return x if part is None else part(x)


def is_fused(module: nn.Module) -> bool:
    """Tell an attention with one matrix for queries, keys and values that has no parts but those of NarrowFused."""
    children = {name for name, _ in module.named_children()}
    own = list(module.parameters(recurse=False)) + list(module.buffers(recurse=False))
    return FUSED <= children <= FUSED | MAYBE and not own and isinstance(getattr(module, "scale", None), float)


def narrowed(module: nn.Module) -> nn.Module:
    """Return the module in the form that keeps its head size and scale; most kinds are in it already."""
    if isinstance(module, nn.MultiheadAttention):
        return NarrowAttention(module)
    if isinstance(module, (NarrowWindows, NarrowFused)):
        return module
    windows = hasattr(module, "shift_size") and hasattr(module, "qkv")
    if windows or is_fused(module):
        kind: Any = type(module)
        module.head_dim = module.proj.in_features // module.num_heads  # type: ignore[operator, union-attr]
        if windows:
            module.scale = module.head_dim**-0.5
        module.__class__ = type(f"Narrow{kind.__name__}", (NarrowWindows if windows else NarrowFused, kind), {})
    return module
