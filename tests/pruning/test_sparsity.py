from __future__ import annotations

import copy

import nets
import pytest
import torch
from torch import nn

from easycompress.pruning.graph import PruningGraph
from easycompress.pruning.settings import StructuredPruning
from easycompress.pruning.sparsity import scales_of, shrinking
from easycompress.pruning.technique import StructuredPruner
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.terms import Labels


def test_scales_are_those_of_the_groups_each_once() -> None:
    model = nets.make(nets.Residual)
    scales = scales_of(PruningGraph(model, nets.images(2)).groups("global", "l1"))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {id(scale) for scale in scales} == {id(norm.weight) for norm in norms}
    assert len(scales) == len(norms)
    assert scales_of(PruningGraph(nets.make(nets.LeNet), nets.images(2)).groups("global", "l1")) == []


@pytest.mark.parametrize("trained", [True, False])
def test_the_penalty_is_in_the_gradient_inside_the_block_alone(trained: bool) -> None:  # noqa: FBT001 - a case
    scale = nn.Parameter(torch.tensor([2.0, -3.0, 0.0]), requires_grad=trained)
    with shrinking([scale], 0.5):
        assert scale.requires_grad == trained
        scale.requires_grad_(True)  # noqa: FBT003 - as training does
        (scale * 4).sum().backward()
        assert scale.grad is not None
        assert torch.equal(scale.grad, torch.tensor([4.5, 3.5, 4.0]))
    scale.grad = None
    (scale * 4).sum().backward()
    assert torch.equal(scale.grad, torch.full((3,), 4.0))  # type: ignore[arg-type]


def trained(sparsity: float | None) -> tuple[list[int], float]:
    """Return the indices of the recoveries, and the mean scale after the first."""
    work = nets.task(nets.make(nets.BatchNormed))
    seen: list[int] = []
    means: list[float] = []

    def recover(model: nn.Module, index: int) -> int:
        schedule = Schedule(epochs=1, lr=0.05, seed=3)
        fit(model, work.data.train, Labels(work.loss), schedule, nets.SPEED, Hooks(None), None)
        seen.append(index)
        means.append(float(model.get_parameter("features.5.weight").detach().abs().mean()))
        return 1

    action = StructuredPruning(strength=0.4, importance="bn-scale", steps=2, sparsity=sparsity)
    result = StructuredPruner().apply(copy.deepcopy(work.model), action, nets.context(work, recover=recover))
    assert result.epochs == len(seen) == action.pauses
    return seen, means[0]


def test_sparse_training_comes_before_the_first_pruning() -> None:
    plain, _ = trained(None)
    sparse, small = trained(0.2)
    barely, large = trained(1e-6)
    assert plain == [1]
    assert sparse == barely == [0, 1]
    assert small < 0.9 * large


def test_the_widths_are_those_of_the_untrained_file() -> None:
    work = nets.task(nets.make(nets.BatchNormed))
    action = StructuredPruning(strength=0.4, importance="bn-scale", sparsity=0.1)
    records = [
        StructuredPruner().apply(copy.deepcopy(work.model), action, context).record
        for context in (nets.context(work), nets.training_context(work))
    ]
    assert records[0]["widths"] == records[1]["widths"]
