"""A tiny transformer encoder with an embedding, from token ids (N, 12) to logits (N, 10), and its task."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import nets
import torch
from torch import Tensor, nn

from easycompress.artifact.onnx_export import export
from easycompress.core.task import Split, Splits, Task
from easycompress.measure.profile import profile
from easycompress.metrics import LOSSES, METRICS

if TYPE_CHECKING:
    import onnx

    from easycompress.technique import Context

WORDS = 500
LENGTH = 12
WIDTH = 40
"""No multiple of a block."""


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm = nn.LayerNorm(WIDTH)
        self.wide = nn.Linear(WIDTH, 96)
        self.narrow = nn.Linear(96, WIDTH)
        self.output = nn.Linear(WIDTH, nets.CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        scores = self.query(x) @ self.key(x).transpose(1, 2) / WIDTH**0.5
        x = self.norm(x + torch.softmax(scores, -1) @ self.value(x))
        x = x + self.narrow(nn.functional.gelu(self.wide(x)))
        return self.output(x.mean(1))


def sentences(count: int, seed: int = 0) -> Tensor:
    return torch.randint(WORDS, (count, LENGTH), generator=torch.Generator().manual_seed(seed))


def task(model: nn.Module) -> Task:
    splits = [Split(sentences(count, count), torch.zeros(count, dtype=torch.long)) for count in (90, 64, 60, 50)]
    return Task(model, Splits(*splits), sentences(2), METRICS["accuracy"], LOSSES["cross-entropy"])


@functools.cache
def model() -> nn.Module:
    return nets.make(Transformer)


@functools.cache
def graph() -> onnx.ModelProto:
    return export(model(), sentences(2))


def context() -> Context:
    return context_of(model(), graph())


def context_of(net: nn.Module, proto: onnx.ModelProto | None = None) -> Context:
    work = dataclasses.replace(task(net), example=sentences(2) % 64)
    usual = nets.context(nets.task(nets.make(nets.Mlp)))
    facts = profile(net, proto, (LENGTH,), nets.CLASSES) if proto is not None else usual.profile
    return dataclasses.replace(usual, task=work, profile=facts)
