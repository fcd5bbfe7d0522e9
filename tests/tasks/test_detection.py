"""Detectors of torchvision as modules of tensors, and one compressed from end to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

import easycompress as ec
from easycompress.core.errors import BadInput, CannotCompress
from easycompress.intake.detection import Detector, as_tensors
from easycompress.measure import latency

if TYPE_CHECKING:
    from pathlib import Path

CLASSES, SIZE = 3, 32


class Backbone(nn.Module):
    def __init__(self, width: int = 16, *, listed: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.out_channels = [width] if listed else width

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def ssd(size: int = SIZE) -> SSD:
    torch.manual_seed(0)
    boxes = DefaultBoxGenerator([[1.0]], scales=[0.3, 0.5])
    backbone = Backbone(listed=True)
    return SSD(backbone, boxes, (size, size), CLASSES, [0.5] * 3, [0.5] * 3, score_thresh=0.05).eval()


def of_levels(kind: Any, **changes: Any) -> Any:
    torch.manual_seed(0)
    anchors = AnchorGenerator(sizes=((8,),), aspect_ratios=((1.0,),))
    return kind(
        Backbone(32), CLASSES, min_size=40, max_size=60, anchor_generator=anchors, score_thresh=0.0, **changes
    ).eval()


@pytest.mark.parametrize(
    ("make", "height"), [(ssd, 32), (ssd, 24), (lambda: of_levels(RetinaNet), 36), (lambda: of_levels(FCOS), 40)]
)
def test_it_detects_what_the_original_detects(make: Any, height: int) -> None:
    model = make()
    images = torch.rand(3, 3, height, 32)
    with torch.no_grad():
        expected = model(list(images))
        detector = Detector(model, height, 32)
        found = detector.detections(detector(images))
    assert sum(len(each["scores"]) for each in expected) > 0
    assert detector.state_dict().keys() == model.state_dict().keys()
    for own, right in zip(found, expected, strict=True):
        for name in ("boxes", "scores", "labels"):
            assert torch.allclose(own[name].float(), right[name].float(), atol=1e-4), name


def test_other_models_stay_as_they_are() -> None:
    model = nn.Linear(3, 2)
    assert as_tensors(model, torch.zeros(2, 3)) is model


def test_what_is_refused() -> None:
    with pytest.raises(BadInput, match=r"SSD: takes images of one size, \(N, 3, H, W\)"):
        as_tensors(ssd(), torch.zeros(2, 5))
    two = object.__new__(FasterRCNN)
    with pytest.raises(CannotCompress, match="FasterRCNN: its second stage works on the boxes"):
        as_tensors(two, torch.zeros(2, 3, 8, 8))


def scenes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """One bright square a picture, red or blue, in noise; targets (N, 2, 5), the second row empty."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.rand(count, 3, SIZE, SIZE, generator=generator)
    targets = torch.full((count, 2, 5), -1.0)
    for image, target in zip(images, targets, strict=True):
        side = int(torch.randint(9, 15, (1,), generator=generator))
        x, y = torch.randint(0, SIZE - side, (2,), generator=generator).tolist()
        label = int(torch.randint(1, CLASSES, (1,), generator=generator))
        image[2 * (label - 1), y : y + side, x : x + side] += 0.7
        target[0] = torch.tensor([x, y, x + side, y + side, label])
    return images, targets


def test_a_detector_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 1)
    monkeypatch.setattr(latency, "PATIENCE", 0.0)
    model = ssd()
    images, targets = scenes(160, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    model.train()
    for step in range(120):
        part = torch.arange(16) + 16 * (step % 10)
        truth = [{"boxes": t[:1, :4], "labels": t[:1, 4].long()} for t in targets[part]]
        optimizer.zero_grad()
        sum(model(list(images[part]), truth).values()).backward()
        optimizer.step()
    model.eval()
    splits = {"train": scenes(160, 0), "validation": scenes(80, 1), "test": scenes(80, 2)}
    goal = {"objective": "size", "target": "2x", "max_drop": "10%", "budget": "1ep", "threads": 1}
    result = ec.compress(model, **splits, out=tmp_path / "out", **goal)
    report = result.report
    assert report.profile["metric"]["name"] == "map"
    assert report.baseline.quality > 15
    assert report.ratio >= 2
    assert report.verdict == "met", report.summary
    assert result.exit_code == 0
    session = onnxruntime.InferenceSession(str(result.out / "model.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: images[:4].numpy()})[0]
    with torch.no_grad():
        scale = max(1.0, float(result.model(images[:4]).abs().max()))
        assert float((torch.from_numpy(found) - result.model(images[:4])).abs().max()) < 0.1 * scale
    again = ec.load(tmp_path / "out", factory=ssd)
    assert isinstance(again, Detector)
    with torch.no_grad():
        assert torch.allclose(again(images[:4]), result.model(images[:4]), atol=1e-4)
