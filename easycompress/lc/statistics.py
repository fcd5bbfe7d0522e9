"""What calibration data says about each layer: the first and second moments of its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress.core.inputs import answer, chunks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from easycompress.core.inputs import Inputs

BATCH = 128


@dataclass(frozen=True)
class LayerStatistics:
    """Of one convolution or linear layer with weight (out, ...), seen as a matrix (out, in) of scheme 1.

    `moments` (in, in): E[x x^T] over samples and positions. `mean` (in,): E[x]. Both float64.
    """

    moments: Tensor
    mean: Tensor


def collect(model: nn.Module, inputs: Inputs, names: Iterable[str]) -> dict[str, LayerStatistics]:
    """Return the statistics of the layers whose weights `names` names, from `inputs` (N, ...), one pass.

    Convolutions with groups and layers of other kinds are left out. The model is in evaluation mode and not changed.
    """
    layers = {name: model.get_submodule(name.rpartition(".")[0]) for name in names}
    layers = {name: layer for name, layer in layers.items() if _known(layer)}
    sums = {name: _Sums() for name in layers}
    handles: list[Any] = [layer.register_forward_pre_hook(sums[name].add) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            for batch in chunks(inputs, BATCH):
                answer(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: known for name in layers if (known := sums[name].result()) is not None}


class _Sums:
    """Sums over batches of inputs less the first batch's mean: a large mean would swallow the variance in float32."""

    def __init__(self) -> None:
        self.moments: Tensor | None = None
        self.shift = self.total = torch.zeros(())
        self.count = 0

    def add(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Take in what a layer is given."""
        if not inputs or not inputs[0].numel():
            return
        columns = _columns(layer, inputs[0].detach().float())
        if self.moments is None:
            self.shift = columns.mean(0)
        columns = columns - self.shift
        product = (columns.T @ columns).double()
        self.moments = product if self.moments is None else self.moments + product
        self.total = self.total + columns.sum(0).double()
        self.count += len(columns)

    def result(self) -> LayerStatistics | None:
        """Return the averages; None for a layer that was never called."""
        if self.moments is None:
            return None
        rest, shift = self.total / self.count, self.shift.double()
        mean = shift + rest
        return LayerStatistics(self.moments / self.count + torch.outer(shift, mean) + torch.outer(rest, shift), mean)


def _known(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def _columns(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return what the weight's matrix multiplies: (samples x positions, in)."""
    if isinstance(layer, nn.Linear):
        return inputs.reshape(-1, inputs.shape[-1])
    assert isinstance(layer, nn.Conv2d)  # noqa: S101 - _known
    inputs = inputs if inputs.dim() == 4 else inputs[None]  # noqa: PLR2004 - one image without a batch
    # The layer's own account of its padding: "same" may pad one side more, and edges may be reflected.
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    inputs = functional.pad(inputs, layer._reversed_padding_repeated_twice, mode)  # noqa: SLF001 - torch's own forward
    unfold = nn.Unfold(layer.kernel_size, layer.dilation, 0, layer.stride)
    columns: Tensor = unfold(inputs).movedim(1, -1)
    return columns.reshape(-1, columns.shape[-1])
