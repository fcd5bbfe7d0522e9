"""Pruning: the C steps that leave a few weights and make all others zero, jointly over the tensors of a task.

Kept values are stored in float16. So each problem is solved exactly up to rounding to float16; a value that float16
rounds to zero (below 3e-8) is not stored, and one beyond 65504 becomes 65504 with its sign.

Sources: Carreira-Perpinan and Idelbayev, "Learning-compression algorithms for neural net pruning", CVPR 2018, for the
four problems; Idelbayev and Carreira-Perpinan, "An empirical comparison of quantization, pruning and low-rank neural
network compression using the LC toolkit", IJCNN 2021, equation 5, for the constraint over all layers at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from easycompress.codes.sparse import sparse_from
from easycompress.core.errors import BadInput
from easycompress.lc.projections.base import View, flat, parted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from easycompress.codes.base import Code

LARGEST = torch.finfo(torch.float16).max
"""The largest value that float16 holds: 65504."""


@dataclass(frozen=True)
class ConstraintL0:
    """argmin over t of ||w - t||^2 under ||t||_0 <= kappa, over all tensors together (IJCNN 2021, equation 5).

    The kappa largest magnitudes stay, of equal ones the first in order; kappa = 0 keeps nothing, kappa >= N everything.
    Set `kappa`, a number of weights, or `share`, a part of all N weights in [0, 1]: kappa = round(share x N). Raises
    BadInput unless exactly one of them is given, in its range.
    """

    kappa: int | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        if (self.kappa is None) == (self.share is None):
            raise BadInput(
                f"ConstraintL0 takes either kappa, a number of weights, or share, a part of them; "
                f"got kappa={self.kappa}, share={self.share}"
            )
        if self.kappa is not None and self.kappa < 0:
            raise BadInput(f"ConstraintL0 needs kappa >= 0, the number of weights to keep; got {self.kappa}")
        if self.share is not None and not 0 <= self.share <= 1:
            raise BadInput(f"ConstraintL0 needs 0 <= share <= 1, the part of the weights to keep; got {self.share}")

    @property
    def view(self) -> View:
        """Any tensor, as a vector."""
        return "vector"

    def project(
        self,
        tensors: Sequence[Tensor],
        mu: float,  # noqa: ARG002 - a constraint has no price
        warm: Sequence[Code] | None = None,  # noqa: ARG002 - solved exactly from nothing
    ) -> list[Code]:
        """Return one sparse code a tensor, at most kappa values together. Raises BadInput on NaN or infinity."""
        vector = flat(tensors)
        kappa = round((self.share or 0.0) * len(vector)) if self.kappa is None else self.kappa
        return _codes(vector, _largest(vector, kappa), tensors)


@dataclass(frozen=True)
class ConstraintL1:
    """argmin over t of ||w - t||^2 under ||t||_1 <= radius, over all tensors together.

    Inside the ball w stays as it is; outside, magnitudes shrink by the one threshold that brings them to its surface
    (Michelot, "A finite algorithm for finding the projection of a point onto the canonical simplex of R^n", 1986).
    Where rounding to the nearest float16 would leave the ball, values round towards zero, so the result is inside, up
    to 1e-9 of the radius. Raises BadInput unless radius is finite and >= 0.
    """

    radius: float

    def __post_init__(self) -> None:
        if not 0 <= self.radius < math.inf:
            raise BadInput(f"ConstraintL1 needs a finite radius >= 0, the largest sum of |w|; got {self.radius}")

    @property
    def view(self) -> View:
        """Any tensor, as a vector."""
        return "vector"

    def project(
        self,
        tensors: Sequence[Tensor],
        mu: float,  # noqa: ARG002 - a constraint has no price
        warm: Sequence[Code] | None = None,  # noqa: ARG002 - solved exactly from nothing
    ) -> list[Code]:
        """Return one sparse code a tensor, of l1 norm radius or less together. Raises BadInput on NaN or infinity."""
        vector = flat(tensors)
        keep, exact = _shrunk(vector, _l1_threshold(vector.abs(), self.radius))
        rounded = exact.half()
        if float(rounded.sum(dtype=torch.float64)) > self.radius:
            rounded = _towards_zero(exact)
        return _codes(_signed(rounded, vector, keep), keep, tensors)


@dataclass(frozen=True)
class PenaltyL0:
    """argmin over t of ||w - t||^2 + (2 lam / mu) ||t||_0: the magnitudes above sqrt(2 lam / mu) stay.

    Magnitudes are compared as float16 has them, so that what was kept once is kept again; a weight exactly on the
    threshold, where both choices cost the same, becomes zero. Raises BadInput unless lam is finite and >= 0.
    """

    lam: float

    def __post_init__(self) -> None:
        checked_lam(self.lam, "PenaltyL0")

    @property
    def view(self) -> View:
        """Any tensor, as a vector."""
        return "vector"

    def project(
        self,
        tensors: Sequence[Tensor],
        mu: float,
        warm: Sequence[Code] | None = None,  # noqa: ARG002 - solved exactly from nothing
    ) -> list[Code]:
        """Return one sparse code a tensor. Raises BadInput on NaN or infinity, and unless mu > 0."""
        threshold = math.sqrt(price(self.lam, mu, "PenaltyL0"))
        vector = flat(tensors).clamp(-LARGEST, LARGEST)
        return _codes(vector, vector.half().float().abs() > threshold, tensors)


@dataclass(frozen=True)
class PenaltyL1:
    """argmin over t of ||w - t||^2 + (2 lam / mu) ||t||_1: every magnitude shrinks by lam / mu, at most to zero.

    It shrinks again when it is applied again, as the minimiser of this problem does. Raises BadInput unless lam is
    finite and >= 0.
    """

    lam: float

    def __post_init__(self) -> None:
        checked_lam(self.lam, "PenaltyL1")

    @property
    def view(self) -> View:
        """Any tensor, as a vector."""
        return "vector"

    def project(
        self,
        tensors: Sequence[Tensor],
        mu: float,
        warm: Sequence[Code] | None = None,  # noqa: ARG002 - solved exactly from nothing
    ) -> list[Code]:
        """Return one sparse code a tensor. Raises BadInput on NaN or infinity, and unless mu > 0."""
        threshold = price(self.lam, mu, "PenaltyL1") / 2
        vector = flat(tensors)
        keep, exact = _shrunk(vector, threshold)
        return _codes(_signed(exact.half(), vector, keep), keep, tensors)


def checked_lam(lam: float, who: str) -> None:
    """Raise BadInput unless the penalty's weight is finite and >= 0."""
    if not 0 <= lam < math.inf:
        raise BadInput(f"{who} needs a finite lam >= 0, the price of its penalty; got {lam}")


def price(lam: float, mu: float, who: str) -> float:
    """Return 2 lam / mu: what a unit of the penalty costs beside the squared distance. Raises BadInput unless mu > 0.

    At mu = 0 the penalty outweighs every distance, and the answer would be zero whatever the weights.
    """
    if not mu > 0:
        raise BadInput(f"{who} is a penalty and needs mu > 0, for direct compression the first mu; got mu={mu}")
    return 2 * lam / mu


def _codes(vector: Tensor, keep: Tensor, tensors: Sequence[Tensor]) -> list[Code]:
    """Return the codes of the kept values of `vector` (N,), cut into the tensors' shapes."""
    if len(vector) and max(vector.aminmax(), key=abs).abs() > LARGEST:  # asked first: clamping writes a copy
        vector = vector.clamp(-LARGEST, LARGEST)
    pairs = zip(parted(vector, tensors), parted(keep, tensors), strict=True)
    return [sparse_from(dense, mask) for dense, mask in pairs]


def _shrunk(vector: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return which weights (N,) are above the threshold, and what these keep of their magnitudes, float64, to 65504.

    In float64, because a threshold rounded to float32 would move every weight the same way.
    """
    magnitude = vector.abs()
    keep = magnitude > threshold
    return keep, (magnitude[keep].double() - threshold).clamp(0, LARGEST)


def _signed(magnitudes: Tensor, vector: Tensor, keep: Tensor) -> Tensor:
    """Return the float32 vector (N,) of those magnitudes at the places of `keep`, with the signs of `vector`."""
    dense = torch.zeros_like(vector)
    dense[keep] = magnitudes.float() * vector[keep].sign()
    return dense


def _largest(vector: Tensor, kappa: int) -> Tensor:
    """Return the mask (N,) of the kappa largest magnitudes, the first of equal ones; zeros, never stored, left out.

    NumPy's partition finds the kappa-th largest without a sort: 15 million in 0.03 s, while `torch.kthvalue` takes
    0.17 s. It is slow where most values are the same, which only zeros are; so these stay out.
    """
    magnitude = vector.abs()
    keep = magnitude > 0
    count = int(torch.count_nonzero(keep))
    if count <= kappa:
        return keep
    if kappa == 0:
        return torch.zeros_like(keep)
    rest = (magnitude[keep] if count < len(vector) / 2 else magnitude).cpu().numpy()
    last = float(np.partition(rest, len(rest) - kappa)[len(rest) - kappa])
    keep = magnitude >= last
    surplus = int(torch.count_nonzero(keep)) - kappa
    if surplus:
        keep[torch.nonzero(magnitude == last).flatten()[-surplus:]] = False
    return keep


def _l1_threshold(magnitude: Tensor, radius: float) -> float:
    """Return the theta >= 0 for which the sum of max(|w| - theta, 0) is the radius; 0 where |w| sums to less.

    Michelot's steps: the threshold of those that remain, then drop those below it, until none is. Each step only raises
    the threshold, so it ends after at most N, in practice about ten, on ever fewer weights.
    """
    rest = magnitude
    if float(rest.sum(dtype=torch.float64)) <= radius * (1 + 1e-9):
        return 0.0
    threshold = 0.0
    while len(rest):
        threshold = (float(rest.sum(dtype=torch.float64)) - radius) / len(rest)
        left = rest[rest > threshold]
        if len(left) == len(rest):
            break
        rest = left
    return threshold


def _towards_zero(exact: Tensor) -> Tensor:
    """Round nonnegative float64 values to the next float16 below or at each."""
    nearest = exact.half()
    above = nearest.double() > exact
    return (nearest.view(torch.int16) - above.to(torch.int16)).view(torch.float16)
