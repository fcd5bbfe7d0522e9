"""Convolutions and attention in one model: which of the two techniques narrows it."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.maxvit import MaxVit

from easycompress.core.progress import Silent
from easycompress.core.task import Split, Splits, Task
from easycompress.measure.profile import profile
from easycompress.metrics import LOSSES, METRICS
from easycompress.pruning.settings import StructuredPruning
from easycompress.pruning.transformers.settings import TransformerPruning
from easycompress.selection.heuristics import MOSTLY_OUTSIDE, Heuristics
from easycompress.selection.select import channels, select
from easycompress.selection.trials import outside_blocks
from easycompress.technique import Context
from easycompress.techniques import technique_for

if TYPE_CHECKING:
    from easycompress.core.profile import ModelProfile

CLASSES = 5


class Encoder(nn.Module):
    """A transformer behind a convolution that cuts the image into patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 4, stride=4)
        self.attention = nn.TransformerEncoderLayer(24, 4, 48, batch_first=True)
        self.output = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.attention(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class Gated(nn.Module):
    """Convolutions with a gate that is called attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 24, 3, padding=1)
        self.attention = nn.Conv2d(24, 24, 1)
        self.output = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.output((x * torch.sigmoid(self.attention(x))).mean((2, 3)))


@functools.cache
def maxvit() -> nn.Module:
    torch.manual_seed(0)
    return MaxVit(
        input_size=(16, 16),
        stem_channels=8,
        partition_size=2,
        block_channels=[16],
        block_layers=[1],
        head_dim=8,
        stochastic_depth_prob=0.0,
        num_classes=CLASSES,
    ).eval()


def facts(model: nn.Module) -> ModelProfile:
    return profile(model, onnx.ModelProto(), (3, 16, 16), CLASSES)


def heuristics(model: nn.Module, **changes: Any) -> Heuristics:
    found = facts(model)
    known: dict[str, Any] = {
        "profile": found,
        "metric": "accuracy",
        "accuracy_like": True,
        "objective": "size",
        "ratio_needed": 3.0,
        "points": 1.0,
        "resources": "ample",
        "epochs_affordable": 20.0,
        "backend": "cpu",
        "labelled": True,
        "class_scores": True,
        "train_samples": 1000,
        "calibration_samples": 100,
        "natural_images": False,
        "augmented": False,
        "packed": False,
        "outside_blocks": outside_blocks(model, found),
    }
    return Heuristics(**known | changes)


def test_the_share_outside_is_that_of_the_parameters_that_can_go() -> None:
    convolution = 24 * 3 * 16 + 24
    attention, neurons = 3 * (24 * 24 + 24) + 24 * 24, 2 * 24 * 48 + 48
    share = (convolution + 24 + 24 + 4 * 24) / (convolution + 24 + 24 + 4 * 24 + attention + neurons)
    assert outside_blocks(Encoder(), facts(Encoder())) == pytest.approx(share)  # biases and norms of the attention too
    assert outside_blocks(Gated(), facts(Gated())) == 1.0
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, CLASSES))
    assert outside_blocks(plain, facts(plain)) == 0.0


@pytest.mark.parametrize(
    ("make", "kind"), [(maxvit, StructuredPruning), (Gated, StructuredPruning), (Encoder, TransformerPruning)]
)
def test_channels_go_where_most_is_outside_of_blocks(make: Any, kind: type) -> None:
    found = heuristics(make().eval())
    assert found.hybrid is (kind is StructuredPruning)
    for strategy in ("global", "attention", "linear"):
        chosen = channels(found, strategy, "taylor")
        assert type(chosen) is kind
        assert kind is TransformerPruning or chosen == StructuredPruning(
            importance="taylor", ratios="sensitivity", saves="params"
        )


def test_the_plan_follows_the_share() -> None:
    for share, kind in ((MOSTLY_OUTSIDE, "transformer-pruning"), (MOSTLY_OUTSIDE + 0.01, "structured-pruning")):
        plan = select(heuristics(Encoder(), outside_blocks=share, ratio_needed=6.0))
        assert plan.steps[0].kind == kind


def test_channels_reach_further_in_a_hybrid_than_blocks() -> None:
    model = maxvit()
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    split = Split(images, torch.arange(4))
    work = Task(model, Splits(split, split, split, split), images[:2], METRICS["accuracy"], LOSSES["cross-entropy"])
    context = Context(work, facts(model), 0, Silent())
    before = sum(p.numel() for p in model.parameters())

    def left(found: Heuristics) -> float:
        chosen: Any = channels(found, "global", "group-norm").model_copy(update={"strength": 1.0, "steps": 1})
        made = technique_for(chosen).apply(copy.deepcopy(model), chosen, context).model
        return sum(p.numel() for p in made.parameters()) / before

    found = heuristics(model, calibration_samples=0)
    assert left(found) < 0.3
    assert left(found.model_copy(update={"outside_blocks": 0.0})) > 0.5
