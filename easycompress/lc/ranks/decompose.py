"""One layer as two or three of low rank, fitted to the inputs that it really sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from easycompress.codes.lowrank import to_matrix
from easycompress.lc.factor import pair_of

if TYPE_CHECKING:
    from easycompress.lc.ranks.settings import Scheme

RIDGE = 1e-6
"""Share of the mean variance added to every direction, so that unused ones can be divided by."""

SPATIAL = 4  # dimensions of a convolution's activations, (N, C, H, W)


@dataclass(frozen=True)
class Seen:
    """What a layer saw: its inputs (N, ...) on some samples and its output there, (N, ...)."""

    inputs: Tensor
    outputs: Tensor


def thinner(layer: nn.Module, scheme: Scheme, ranks: tuple[int, ...]) -> nn.Sequential:
    """Return the layers, weights not set, that stand for `layer` at `ranks` (one rank; for Tucker input and output).

    But for scheme-2 the last one has a bias in any case.
    """
    if scheme == "scheme-2":
        return pair_of(layer, ranks[0], scheme)
    if isinstance(layer, nn.Linear):
        first = nn.Linear(layer.in_features, ranks[0], bias=False)
        return nn.Sequential(first, nn.Linear(ranks[0], layer.out_features))
    assert isinstance(layer, nn.Conv2d)  # noqa: S101 - candidates
    inner, outer = (layer.in_channels, *ranks)[-2:]
    settings: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    core = nn.Conv2d(inner, outer, layer.kernel_size, bias=False, **settings)  # type: ignore[arg-type]  # a 2-tuple
    last = nn.Conv2d(outer, layer.out_channels, 1)
    if scheme == "scheme-1":
        return nn.Sequential(core, last)
    return nn.Sequential(nn.Conv2d(layer.in_channels, inner, 1, bias=False), core, last)


@torch.no_grad()
def fitted(layer: nn.Module, scheme: Scheme, ranks: tuple[int, ...], seen: Seen) -> nn.Sequential:
    """Return the layers that stand for `layer` at `ranks`.

    scheme-1 and linear layers: argmin over M of E|y - M x|^2 under rank M <= r, for the centred outputs y = W x that
    were seen: M = U U^T W with the first r eigenvectors U of their covariance (Zhang et al., TPAMI 2016, section 3.1).
    What the other directions give on average goes into the bias. scheme-2: the truncated SVD of the weight's scheme-2
    matrix. tucker: the input's channels projected by the SVD of the weight's input unfolding, weighted by their second
    moments, then scheme-1 of what remains (Kim et al., ICLR 2016, with the weighting).
    """
    result: Any = thinner(layer, scheme, ranks)
    weight = layer.get_parameter("weight").detach().double()
    if scheme == "scheme-2":
        _fill_scheme_2(result, layer, ranks[0])
        return result  # type: ignore[no-any-return]
    basis, shift = _outputs(layer, ranks[-1], seen)
    if scheme == "tucker":
        into, out_of = _inputs(weight, ranks[0], seen.inputs)
        result[0].weight.copy_(into[..., None, None])
        weight = torch.einsum("oihw,ir->orhw", weight, out_of)
    thin = (basis.T @ weight.flatten(1)).reshape(basis.shape[1], *weight.shape[1:])
    result[-2].weight.copy_(thin)
    result[-1].weight.copy_(basis.reshape(result[-1].weight.shape))
    result[-1].bias.copy_(shift)
    return result  # type: ignore[no-any-return]


def _outputs(layer: nn.Module, rank: int, seen: Seen) -> tuple[Tensor, Tensor]:
    """Return the first eigenvectors (C, rank) of the outputs' covariance, and the bias (C,) that goes with them."""
    values = _rows(seen.outputs).double()
    bias: Any = layer.bias
    given = torch.zeros(values.shape[1], dtype=torch.float64) if bias is None else bias.detach().double()
    linear = values - given
    mean = linear.mean(0)
    centred = linear - mean
    basis = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, :rank]
    return basis, given + mean - basis @ (basis.T @ mean)


def _inputs(weight: Tensor, rank: int, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the projection (rank, C) of a convolution's input channels and the way back, (C, rank)."""
    rows = _rows(inputs).double()
    moments = rows.T @ rows / len(rows)
    moments += RIDGE * moments.diagonal().mean().clamp_min(1e-12) * torch.eye(len(moments), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(moments)
    root, inverse = vectors * values.sqrt(), vectors / values.sqrt()
    weighted = root.T @ weight.transpose(0, 1).flatten(1)
    basis = torch.linalg.eigh(weighted @ weighted.T).eigenvectors.flip(1)[:, :rank]
    return basis.T @ root.T, inverse @ basis


def _rows(activations: Tensor) -> Tensor:
    """Return activations with one row a sample and place: (..., C), or (N, C, H, W) of a convolution, to (M, C)."""
    if activations.dim() == SPATIAL:
        activations = activations.permute(0, 2, 3, 1)
    return activations.reshape(-1, activations.shape[-1])


def _fill_scheme_2(pair: Any, layer: Any, rank: int) -> None:  # noqa: ANN401 - two convolutions for one
    matrix = to_matrix(layer.weight.detach(), "scheme-2").double()
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    root = values[:rank].sqrt()
    n, c, h, w = layer.weight.shape
    pair[0].weight.copy_((root[:, None] * right[:rank]).reshape(rank, c, 1, w))
    pair[1].weight.copy_((left[:, :rank] * root).reshape(n, h, rank).permute(0, 2, 1)[..., None])
    if layer.bias is not None:
        pair[1].bias.copy_(layer.bias)
