"""The integer arithmetic of the file, simulated in floats that gradients pass through."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from easycompress.codes.affine import TINY
from easycompress.training.parallel import extremes

LEVELS = 255
"""Steps of an unsigned 8-bit grid."""

AVERAGING = 0.02
"""Share of a batch's range in the moving average of an activation's range."""

WATCHED = 4
"""Every so many-th sample of a batch is looked at for its range: finding it costs as much as several layers."""


def grid(low: float, high: float) -> tuple[float, int]:
    """Return (scale, zero point) of the uint8 grid over [low, high] and zero, as ONNX Runtime's quantizer does.

    The scale is a float32 number. A range so small that its scale would be below TINY gets scale 1 and zero point 0.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / LEVELS
    if not math.isfinite(scale):
        return math.nan, 0  # training has diverged, which its loss then tells
    if scale < TINY:
        return 1.0, 0
    zero = round(-low / scale)  # a half goes to the even neighbour, as everywhere in ONNX
    return float(torch.tensor(scale, dtype=torch.float32)), min(max(zero, 0), LEVELS)


class _OnGrid(torch.autograd.Function):
    """QuantizeLinear, then DequantizeLinear; backwards the identity where nothing was cut off (straight through)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, zero: int, floor: float) -> Tensor:  # noqa: ANN401 - torch's own
        ctx.save_for_backward(x)
        # Half a step beyond the outermost levels still rounds to them. `floor` is higher behind a rectifier.
        ctx.range = max(floor, (-zero - 0.5) * scale), (LEVELS - zero + 0.5) * scale
        # In float32 whatever comes in: in bfloat16 the quotient would be rounded before it is rounded.
        y = x.float() / scale if x.dtype != torch.float32 else x / scale
        return y.round_().clamp_(-zero, LEVELS - zero).mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401 - torch's own
        (x,) = ctx.saved_tensors
        # One pass over the memory and no mask to store; torch's own fake quantization takes forty times as long here.
        passed: Tensor = torch.ops.aten.hardtanh_backward(gradients[0], x, *ctx.range)
        return passed, None, None, None


def on_grid(x: Tensor, scale: float, zero: int, floor: float = -math.inf) -> Tensor:
    """Return (saturate(round(x / scale) + zero) - zero) x scale, the shape and dtype of `x`; a half rounds to even.

    The gradient is 1 where no value was cut off and x > `floor`, else 0.
    """
    result: Tensor = _OnGrid.apply(x, scale, zero, floor)
    return result


class Activation(nn.Module):
    """Puts a tensor on the uint8 grid of its range, one for the whole tensor.

    `range` (2,) is a buffer, so that it is trained, checkpointed and rolled back with the weights. While training, the
    first `watch(steps)` batches move it: a moving average of their minimum and maximum. `rectified`: the tensor comes
    out of a ReLU, which cutting off at zero point 0 does along the way, as in the file.
    """

    range: Tensor
    left: Tensor

    def __init__(self, low: float, high: float, *, rectified: bool) -> None:
        super().__init__()
        self.rectified = rectified
        self.register_buffer("range", torch.tensor([low, high], dtype=torch.float32))
        self.register_buffer("left", torch.tensor(0))

    def watch(self, steps: int) -> None:
        """Let the next `steps` training batches move the range."""
        self.left.fill_(steps)

    def grid(self) -> tuple[float, int]:
        """Return the scale and the zero point."""
        low, high = self.range.tolist()
        return grid(0.0 if self.rectified else low, high)

    def forward(self, x: Tensor, *, watched: bool = True) -> Tensor:
        """Return `x` on its grid. `watched` is False where another tensor's range is shared."""
        if watched and self.training and int(self.left):
            self.left -= 1
            seen = x.detach()[::WATCHED]
            low = seen.new_zeros(()) if self.rectified else seen.amin()
            self.range.lerp_(torch.stack(extremes(low, seen.amax())).float(), AVERAGING)
        scale, zero = self.grid()
        return on_grid(x, scale, zero, 0.0 if self.rectified else -math.inf)


class _Layer(torch.autograd.Function):
    """Weight and bias of a layer on their grids, neither of which is ever cut off.

    Backwards the identity for the bias; a weight's gradient is multiplied by its channel's max|w|^2, as if w / max|w|
    were what is trained. Folded batch norm leaves channels of very different sizes, on which one rate for all diverges:
    ResNet20 at 0.005, while relative steps are stable at 0.05.
    """

    @staticmethod
    def forward(  # the grids of both from one pass over the weight
        ctx: Any,  # noqa: ANN401 - torch's own
        weight: Tensor,
        bias: Tensor | None,
        limit: int,
        scale_in: float,
        axis: int,
    ) -> tuple[Tensor, Tensor | None]:
        shape = [1] * weight.dim()
        shape[axis] = -1
        peak = weight.abs().amax([dim for dim in range(weight.dim()) if dim != axis])
        ctx.save_for_backward(peak.reshape(shape))
        scale = peak / limit
        scale = torch.where(scale >= TINY, scale, torch.ones_like(scale))
        columns = scale.reshape(shape)
        dense = (weight / columns).round_().mul_(columns)
        if bias is None:
            return dense, None
        step = scale * scale_in  # what one unit of the layer's integer sums is worth
        return dense, (bias.double() / step).round_().float() * step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:  # noqa: ANN401 - torch's own
        (peak,) = ctx.saved_tensors
        return gradients[0] * peak.square(), gradients[1], None, None, None


class Weights(nn.Module):
    """Puts a layer's weight on its symmetric int8 grid per channel, its bias on the int32 grid of the layer's sums.

    `limit` is the largest integer of a weight. `source` is what quantizes the layer's input, None where nothing does:
    then the bias stays as it is. Gradients pass straight through, a weight's times its channel's max|w|^2.
    """

    def __init__(self, limit: int, source: Activation | None, axis: int = 0) -> None:
        """Take the channels of a weight to be along `axis`: 1 of a transposed convolution."""
        super().__init__()
        self.limit, self.axis = limit, axis
        self._source = (source,)  # in a tuple: it has its place in the module tree already

    def forward(self, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return (weight, bias) as the file holds them: weight with C entries along the axis, bias (C,)."""
        source = self._source[0]
        rounded = None if source is None else bias
        scale_in = 1.0 if source is None else source.grid()[0]
        dense, offset = _Layer.apply(weight, rounded, self.limit, scale_in, self.axis)
        return dense, bias if source is None else offset


class Rows(nn.Module):
    """Puts rows that were looked up in a table on their symmetric int8 grids, one a row, as the file's table is.

    Gradients pass straight through, a row's times its max|w|^2. `limit` is the largest integer.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, rows: Tensor) -> Tensor:
        """Return `rows` (..., width) as the file's table gives them."""
        dense, _ = _Layer.apply(rows.flatten(0, -2), None, self.limit, 1.0, 0)
        result: Tensor = dense.reshape(rows.shape)
        return result
