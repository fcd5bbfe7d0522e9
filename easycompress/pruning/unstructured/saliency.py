"""What the removal of a weight costs the loss, by Optimal Brain Damage."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vjp, vmap

from easycompress.core.errors import CannotCompress
from easycompress.core.inputs import arguments, first, like, parts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from easycompress.core.task import Split

MOST_OUTPUTS = 64
"""Outputs a sample up to which the loss's curvature by them is taken whole: each costs a pass back through the net."""

CHUNK_NUMBERS = 10_000_000
"""Numbers that the gradients of samples taken together may hold."""

NO_CURVATURE = "unstructured pruning: criterion obd: the loss has no finite curvature here; use criterion magnitude"

_Squares = dict[str, "Tensor"]


def obd(
    model: nn.Module, weights: Mapping[str, Tensor], split: Split, loss: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Tensor]:
    """Return the saliency h w^2 / 2 of every weight, h the diagonal of the loss's curvature: LeCun et al. 1990, eq. 5.

    Removing w_i at a minimum costs about h_ii w_i^2 / 2 where the other second derivatives are left out.
    Raises CannotCompress where the curvature is infinite or no number.
    """
    try:
        curvature = curvature_diagonal(model, weights, split, loss)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # public, but not to mypy: no numbers
        raise CannotCompress(NO_CURVATURE) from error
    if not all(bool(torch.isfinite(h).all()) for h in curvature.values()):
        raise CannotCompress(NO_CURVATURE)
    return {name: h * weights[name].detach() ** 2 / 2 for name, h in curvature.items()}


def curvature_diagonal(
    model: nn.Module, weights: Mapping[str, Tensor], split: Split, loss: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Tensor]:
    """Return the Gauss-Newton diagonal of the mean loss over `split` by each weight, in evaluation mode, each >= 0.

    The loss of a sample is L(z(w)). By the chain rule d2L/dw2 = J' H J + sum over outputs of dL/dz d2z/dw2, where
    J = dz/dw and H = d2L/dz2. The second term is left out, as LeCun et al. 1990 (eq. 9) do: it vanishes at a perfect
    fit, and always where the outputs are piecewise linear in each single weight, which they are in nets of linear
    layers, convolutions, batch norm, poolings and ReLU: there the result is the Hessian's own diagonal. Unlike theirs
    nothing else is left out: with H = S S', the diagonal of J' H J is the sum over the columns s of S of (J' s)^2,
    one backward pass each. Negative eigenvalues of H (a loss that isn't convex) count as 0.

    With more than MOST_OUTPUTS outputs a sample it is the empirical Fisher diagonal, the mean square of the gradients:
    the same in expectation where the model's own probabilities hold, and the loss is the negative log-likelihood.
    """
    chosen = {name: weight.detach() for name, weight in weights.items()}
    targets = split.targets
    assert targets is not None  # noqa: S101 - a task without labels has the model's own answers as targets

    def one(tensors: tuple[Tensor, ...], target: Tensor) -> _Squares:
        positional, keywords = arguments(like(split.inputs, [tensor[None] for tensor in tensors]))

        def outputs(values: Mapping[str, Tensor]) -> Tensor:
            return first(functional_call(model, dict(values), positional, keywords)).float()

        return _squares(outputs, chosen, lambda answers: loss(answers, target[None]))

    model.eval()
    count = sum(weight.numel() for weight in chosen.values())
    size = max(CHUNK_NUMBERS // max(count, 1), 1)
    total = {name: torch.zeros_like(weight) for name, weight in chosen.items()}
    # oneDNN's recurrent layers keep nothing for a way back where no graph is kept.
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    for start in range(0, len(split), size):
        native = torch.backends.mkldnn.flags(enabled=False) if recurrent else contextlib.nullcontext()
        tensors = tuple(tensor[start : start + size] for tensor in parts(split.inputs))
        with torch.no_grad(), native:  # keeps no graph of the parameters that aren't asked about
            found = _over_samples(one, tensors, targets[start : start + size])
        for name, squares in found.items():
            total[name] += squares
    return {name: squares / max(len(split), 1) for name, squares in total.items()}


def _squares(
    outputs: Callable[[Mapping[str, Tensor]], Tensor], weights: Mapping[str, Tensor], loss: Callable[[Tensor], Tensor]
) -> _Squares:
    """Return one sample's Gauss-Newton diagonal, or the squares of its gradient where there are many outputs."""
    answers, pull = vjp(outputs, weights)[:2]
    if answers.numel() > MOST_OUTPUTS:
        (slopes,) = pull(grad(loss)(answers))
        return {name: slope**2 for name, slope in slopes.items()}
    width = answers.numel()
    curvature = jacrev(grad(loss))(answers).reshape(width, width)
    values, vectors = torch.linalg.eigh((curvature + curvature.T) / 2)
    factors = vectors * values.clamp(min=0).sqrt()
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for column in range(width):
        (slopes,) = pull(factors[:, column].reshape(answers.shape))
        total = {name: total[name] + slope**2 for name, slope in slopes.items()}
    return total


def _over_samples(
    one: Callable[[tuple[Tensor, ...], Tensor], _Squares], tensors: tuple[Tensor, ...], targets: Tensor
) -> _Squares:
    """Return the sum over samples, all at once where every operator allows it, else one by one."""
    try:
        batched: _Squares = vmap(one)(tensors, targets)
    except (RuntimeError, ValueError):  # operators without a batching rule, control flow on values
        singly = [one(tuple(t[i] for t in tensors), targets[i]) for i in range(len(targets))]
        return {name: torch.stack([squares[name] for squares in singly]).sum(0) for name in singly[0]}
    return {name: squares.sum(0) for name, squares in batched.items()}
