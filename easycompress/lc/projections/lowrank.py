"""Low rank: the C steps that make a matrix the product of two thin ones, at a given or at the best rank.

Both solve their problem by the eigenvectors of W W^T, the smaller side's, in float64. That is as exact as the singular
values of a float32 matrix need (a value s comes out within about 1e-8 of the largest, one float32 rounding) and takes a
tenth of the time of a full SVD. Factors are stored in float16, each with the root of the singular values, so that
neither side over- or underflows before the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from easycompress.codes.lowrank import Layout, LowRank, to_matrix
from easycompress.core.errors import BadInput
from easycompress.lc.projections.base import View, flat
from easycompress.lc.projections.pruned import checked_lam, price

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easycompress.codes.base import Code

Cost = Literal["storage", "flops"]

COLUMNS = 4096
"""Columns that are raised to float64 together, so that a wide matrix isn't copied whole."""

FEW = 8
LARGE = 1024
"""From this side on, up to side / FEW vectors are found alone: 10 of 1536 in 0.3 s, all in 1.0 s (one thread).

On smaller ones the gain is less than what SciPy's and torch's threads lose to each other: 0.09 s for 0.05 s at 512.
"""


@dataclass(frozen=True)
class LowRankAt:
    """argmin over T of ||W - T||^2 under rank T <= rank, for each tensor's matrix view W (m, n).

    The first `rank` singular triples of W (Eckart and Young 1936). A rank of min(m, n) or more keeps everything, up to
    float16; rank 0 is the zero matrix. `layout` says how a convolution becomes a matrix (`codes.lowrank.Layout`).
    Raises BadInput unless rank >= 0.
    """

    rank: int
    layout: Layout = "scheme-1"

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise BadInput(f"LowRankAt needs rank >= 0; got {self.rank}")
        _check_layout(self.layout, "LowRankAt")

    @property
    def view(self) -> View:
        """Tensors with a matrix view."""
        return "matrix"

    def project(
        self,
        tensors: Sequence[Tensor],
        mu: float,  # noqa: ARG002 - a constraint has no price
        warm: Sequence[Code] | None = None,  # noqa: ARG002 - solved exactly from nothing
    ) -> list[Code]:
        """Return one low-rank code a tensor.

        Raises BadInput on NaN or infinity, on fewer than 2 dimensions, and where float16 can't hold the factors.
        """
        return [self._one(tensor) for tensor in tensors]

    def _one(self, tensor: Tensor) -> LowRank:
        matrix = _matrix(tensor, self.layout)
        return _code(matrix, _leading(_gram(matrix), self.rank), tensor, self.layout)


@dataclass(frozen=True)
class RankSelection:
    """argmin over r and T of ||W - T||^2 + (2 lam / mu) C(r) under rank T = r, for each tensor's matrix view W (m, n).

    C(r) = r (m + n), the numbers stored, for cost "storage"; for "flops" times `applications`, how often the layer's
    matrix is applied to one input (its output positions; 1 for a linear layer), one number for all tensors or one a
    tensor. Solved exactly by trying every r: the least distance at r is the sum of the squared singular values beyond
    r. Of equal ranks the smallest. Where the best r costs as much as the matrix itself, r (m + n) >= m n, the matrix
    itself is meant, and the code has full rank min(m, n). Raises BadInput unless lam is finite and >= 0, and
    applications are >= 1.

    Source: Idelbayev and Carreira-Perpinan, "Low-rank compression of neural nets: learning the rank of each layer",
    CVPR 2020; "An empirical comparison ...", IJCNN 2021, equation 6.
    """

    lam: float
    cost: Cost = "storage"
    layout: Layout = "scheme-1"
    applications: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        checked_lam(self.lam, "RankSelection")
        _check_layout(self.layout, "RankSelection")
        if self.cost not in get_args(Cost):
            raise BadInput(f"RankSelection needs cost {' or '.join(get_args(Cost))}; got {self.cost!r}")
        if not self.applications or min(self.applications) < 1:
            raise BadInput(f"RankSelection needs applications >= 1, one or one a tensor; got {self.applications}")
        if self.cost == "storage" and set(self.applications) != {1}:
            raise BadInput(
                f"RankSelection counts applications for cost 'flops' alone; got {self.applications} with 'storage'"
            )

    @property
    def view(self) -> View:
        """Tensors with a matrix view."""
        return "matrix"

    def project(
        self,
        tensors: Sequence[Tensor],
        mu: float,
        warm: Sequence[Code] | None = None,  # noqa: ARG002 - solved exactly from nothing
    ) -> list[Code]:
        """Return one low-rank code a tensor.

        Raises BadInput on NaN or infinity, on fewer than 2 dimensions, where float16 can't hold the factors, unless
        mu > 0, and where applications are neither one nor one a tensor.
        """
        unit = price(self.lam, mu, "RankSelection")
        applications = self.applications * len(tensors) if len(self.applications) == 1 else self.applications
        if len(applications) != len(tensors):
            raise BadInput(
                f"RankSelection needs one number of applications, or one for each of the {len(tensors)} tensors; "
                f"got {len(applications)}"
            )
        return [self._one(tensor, unit * times) for tensor, times in zip(tensors, applications, strict=True)]

    def _one(self, tensor: Tensor, unit: float) -> LowRank:
        matrix = _matrix(tensor, self.layout)
        energies, basis = _spectrum(_gram(matrix))
        rank = _best_rank(energies, unit, *matrix.shape)
        return _code(matrix, basis[:, :rank], tensor, self.layout)


def _best_rank(energies: Tensor, unit: float, m: int, n: int) -> int:
    """Return argmin over r of unit x r (m + n) + the sum of `energies` (min(m, n),) beyond r, or min(m, n)."""
    # From the smallest up, so that a small tail isn't the difference of two large sums.
    tails = torch.cat([energies.flip(0).cumsum(0).flip(0), energies.new_zeros(1)])
    ranks = torch.arange(len(tails), dtype=torch.float64, device=tails.device)
    costs = torch.where(ranks > 0, ranks * (m + n) * unit, 0.0)  # an infinite unit leaves rank 0 free
    best = int((tails + costs).argmin())
    return best if best * (m + n) < m * n else min(m, n)


def _matrix(tensor: Tensor, layout: Layout) -> Tensor:
    """Return the float32 matrix view (m, n). Raises BadInput on fewer than 2 dimensions, NaN or infinity."""
    if tensor.dim() < 2:  # noqa: PLR2004 - a matrix
        raise BadInput(
            f"a tensor of shape {tuple(tensor.shape)} has no matrix view; low rank needs 2 dimensions or more"
        )
    weight = flat([tensor]).reshape(tensor.shape)
    if not tensor.numel():
        return weight.reshape(tensor.shape[0], math.prod(tensor.shape[1:]))
    return to_matrix(weight, layout)


def _gram(matrix: Tensor) -> Tensor:
    """Return the products of the smaller side's vectors, float64 (k, k) with k = min(m, n)."""
    wide = _wide(matrix)
    gram = matrix.new_zeros(len(wide), len(wide), dtype=torch.float64)
    for part in torch.split(wide, COLUMNS, dim=1):
        columns = part.double()
        gram.addmm_(columns, columns.T)
    return gram


def _spectrum(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared singular values (k,), falling, and their vectors as columns (k, k), float64.

    What is below the rounding of the largest is 0, so that a matrix of rank 2 has two.
    """
    if not len(gram):
        return gram.new_zeros(0), gram
    values, vectors = torch.linalg.eigh(gram)
    energies = values.flip(0).clamp(min=0)
    noise = energies[0] * len(gram) * torch.finfo(torch.float64).eps
    return torch.where(energies > noise, energies, 0.0), vectors.flip(1)


def _leading(gram: Tensor, rank: int) -> Tensor:
    """Return the first `rank` vectors of _spectrum, or all."""
    side = len(gram)
    if not rank or rank * FEW > side or side < LARGE:
        return _spectrum(gram)[1][:, :rank] if rank else gram[:, :0]
    chosen = (side - rank, side - 1)
    _, vectors = scipy.linalg.eigh(gram.cpu().numpy(), subset_by_index=chosen, check_finite=False)
    return torch.from_numpy(np.ascontiguousarray(vectors[:, ::-1])).to(gram.device)


def _wide(matrix: Tensor) -> Tensor:
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def _code(matrix: Tensor, basis: Tensor, tensor: Tensor, layout: Layout) -> LowRank:
    """Return the code of the projection of `matrix` onto `basis` (k, r), orthonormal vectors of its smaller side."""
    wide = _wide(matrix)
    vectors = basis.float()
    products = vectors.T @ wide
    # The norms, rather than the roots of the eigenvalues: small ones keep their float32 precision.
    roots = torch.linalg.vector_norm(products, dim=1, dtype=torch.float64).sqrt().float()
    thin = vectors * roots
    long = products / torch.where(roots > 0, roots, 1.0)[:, None]
    left, right = (thin, long) if wide is matrix else (long.T, thin.T)
    left, right = left.half().contiguous(), right.half().contiguous()
    if not (torch.isfinite(left).all() and torch.isfinite(right).all()):
        raise BadInput(
            f"a tensor of shape {tuple(tensor.shape)} has singular values that float16 factors can't hold; "
            "leave it out of low rank"
        )
    return LowRank(left, right, tuple(tensor.shape), layout)


def _check_layout(layout: str, who: str) -> None:
    if layout not in get_args(Layout):
        raise BadInput(f"{who} needs layout {' or '.join(get_args(Layout))}; got {layout!r}")
