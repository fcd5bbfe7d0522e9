"""Object detectors of torchvision, which take lists of images and return lists of dicts, as modules of tensors.

What can be compressed and exported is the network: backbone and heads, at one size of image. Anchors, the decoding of
boxes and the suppression of double ones are no part of the file; a Detector has them as `detections()`, which is
torchvision's own code, and the metric calls it.
"""

from __future__ import annotations

import copy
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress.core.errors import BadInput, CannotCompress
from easycompress.core.inputs import are_images

if TYPE_CHECKING:
    from easycompress.core.inputs import Inputs

HEADS = ("bbox_regression", "cls_logits", "bbox_ctrness")
"""Answers of torchvision's heads, (N, A, ...) for A anchors, in the order in which a Detector joins them."""

ONE_STAGE = ("SSD", "RetinaNet", "FCOS")


class Detector(nn.Module):
    """A one-stage detector of torchvision at one size of image: (N, 3, H, W) in 0..1 -> raw answers (N, A, 4 + ...).

    Its parameters have the names that they have in the original.
    """

    def __init__(self, original: Any, height: int, width: int) -> None:  # noqa: ANN401 - torchvision is untyped here
        super().__init__()
        self.backbone, self.head = original.backbone, original.head
        transform = original.transform
        with torch.no_grad():
            images, _ = transform([torch.zeros(3, height, width)])
            features = self._features(images.tensors)
            self.anchors: Tensor = original.anchor_generator(images, features)[0]
            made = self.head(features)
        self.given, self.size = (height, width), tuple(images.image_sizes[0])
        self.padded = tuple(images.tensors.shape[-2:])
        self.widths = {name: made[name].shape[-1] for name in HEADS if name in made}
        places = [feature.shape[-2] * feature.shape[-1] for feature in features]
        each = len(self.anchors) // sum(places)
        self.levels = None if type(original).__name__ == "SSD" else [each * place for place in places]
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(transform.image_mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(transform.image_std)[:, None, None], persistent=False)
        rest = copy.copy(original)
        rest._modules = {}  # noqa: SLF001 - what stays are thresholds and the coder of boxes
        self._rest = (rest,)  # in a tuple it is no part of this module

    def _features(self, images: Tensor) -> list[Tensor]:
        found = self.backbone(images)
        return [found] if isinstance(found, Tensor) else list(found.values())

    def forward(self, images: Tensor) -> Tensor:
        """Return the heads' raw answers, joined: offsets of boxes, scores of classes, maybe centredness."""
        images = (images - self.mean) / self.std
        if self.size != self.given:
            images = functional.interpolate(images, size=self.size, mode="bilinear", align_corners=False)
        if self.padded != self.size:
            images = functional.pad(images, (0, self.padded[1] - self.size[1], 0, self.padded[0] - self.size[0]))
        made = self.head(self._features(images))
        return torch.cat([made[name] for name in self.widths], -1)

    def detections(self, raw: Tensor) -> list[dict[str, Tensor]]:
        """Return of each image `boxes` (D, 4) in pixels x1 y1 x2 y2, `scores` (D,) and `labels` (D,), best first."""
        parts: Any = dict(zip(self.widths, torch.split(raw.float(), list(self.widths.values()), -1), strict=True))
        anchors: Any = [self.anchors] * len(raw)
        if self.levels is not None:
            parts = {name: list(torch.split(part, self.levels, 1)) for name, part in parts.items()}
            anchors = [list(torch.split(self.anchors, self.levels))] * len(raw)
        with torch.no_grad():
            found: list[dict[str, Tensor]] = self._rest[0].postprocess_detections(
                parts, anchors, [self.size] * len(raw)
            )
        scale = torch.tensor([self.given[i] / self.size[i] for i in (1, 0, 1, 0)])
        return [{**each, "boxes": each["boxes"] * scale} for each in found]


def as_tensors(model: nn.Module, inputs: Inputs) -> nn.Module:
    """Return a detector of torchvision as a Detector for images like `inputs`; other models as they are.

    Raises BadInput where they are no images, CannotCompress for a detector of two stages.
    """
    torchvision: Any = sys.modules.get("torchvision.models.detection")
    if torchvision is None:
        return model  # nobody has imported it, so nothing is made of it
    if isinstance(model, torchvision.FasterRCNN):  # MaskRCNN and KeypointRCNN are such, too
        raise CannotCompress(
            f"{type(model).__name__}: its second stage works on the boxes that its first finds, however many, which "
            "no file of fixed shapes holds; use a detector of one stage (SSD, SSDlite, RetinaNet, FCOS)"
        )
    kinds = tuple(getattr(getattr(torchvision, kind.lower()), kind) for kind in ONE_STAGE)
    if not isinstance(model, kinds):
        return model
    if not are_images(inputs):
        raise BadInput(
            f"{type(model).__name__}: takes images of one size, (N, 3, H, W) in 0..1; resize those of --data"
        )
    assert isinstance(inputs, Tensor)  # noqa: S101 - images are
    return Detector(model, *inputs.shape[2:])
