"""Whole files for the fuzzer to damage: a tiny net in every stored form, written as the product writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from easycompress.artifact.external import write_graph
from easycompress.artifact.onnx_export import export
from easycompress.artifact.write import PACKED, write_model
from easycompress.codes.affine import quantize_per_channel
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive
from easycompress.codes.half import Half
from easycompress.codes.hashed import Hashed
from easycompress.codes.lowrank import LowRank, matrix_size
from easycompress.codes.sparse import sparse_from
from easycompress.executor.build import Built
from tests.architectures.cells import action_of, bench

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from easycompress.codes.base import Code

EXAMPLE = torch.zeros(2, 1, 8, 8)

INTEGER_FORMS = (
    ("functional", "static-int8"), ("functional", "dynamic-int8"), ("functional", "weight-only"),
    ("functional", "float16"), ("lstm", "dynamic-int8"), ("attention", "weight-only"),
)  # fmt: skip
"""Architectures and the techniques that store them as integers or halves."""


def _book(weight: Tensor, k: int, common: float) -> Codebook:
    """Return a codebook code of which this share of the indices is the same: rarer ones choose another layout."""
    generator = torch.Generator().manual_seed(k)
    indices = torch.randint(1, k, weight.shape, generator=generator)
    indices[torch.rand(weight.shape, generator=generator) < common] = 0
    return Codebook(indices.to(torch.uint8), torch.linspace(-0.5, 0.5, k))


def _low_rank(weight: Tensor) -> LowRank:
    rows, columns = matrix_size(tuple(weight.shape), "scheme-1")
    generator = torch.Generator().manual_seed(0)
    factors = (torch.randn(size, generator=generator).half() for size in ((rows, 2), (2, columns)))
    return LowRank(*factors, tuple(weight.shape))


def _sparse(weight: Tensor, share: float = 0.1) -> Code:
    return sparse_from(weight, weight.abs() >= weight.abs().flatten().quantile(1 - share))


CODES: dict[str, Callable[[Tensor], Code]] = {
    "affine": quantize_per_channel,
    "planes": lambda w: _book(w, 4, 0.0),
    "mask": lambda w: _book(w, 5, 0.7),
    "gaps": lambda w: _book(w, 4, 0.97),
    "sparse": _sparse,
    "low-rank": _low_rank,
    "hashed": lambda w: Hashed(torch.linspace(-1, 1, 11), tuple(w.shape), 7),
    "half": lambda w: Half(w.half()),
    "additive": lambda w: Additive((_book(w, 3, 0.0), _sparse(w))),
}
"""The code of a weight, by the form's name. With a batch norm behind the layer the first becomes a scaled one."""


def net(*, norm: bool = False) -> nn.Module:
    """Return a convolution and a linear layer, with a batch norm between them or not."""
    torch.manual_seed(0)
    middle = [nn.BatchNorm2d(6)] if norm else []
    return nn.Sequential(nn.Conv2d(1, 6, 3), *middle, nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 10)).eval()


def write_coded(folder: Path, names: Sequence[str], norms: Sequence[bool] = (False, True)) -> None:
    """Write the net with its weights in these forms, without and with a batch norm, as .onnx and .ecz."""
    for norm in norms:
        for name in names:
            module = net(norm=norm)
            codes = {key: CODES[name](w.detach()) for key, w in module.named_parameters() if w.dim() > 1}
            with torch.no_grad():
                for key, made in codes.items():
                    module.get_parameter(key).copy_(made.dense())
            write_model(module, EXAMPLE, folder / f"{name}{'-scaled' * norm}.onnx", codes=codes, packed=True)


def make_seeds(folder: Path) -> list[Path]:
    """Write the files, or find them in the folder; return them in a fixed order."""
    done = folder / "done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_coded(folder, tuple(CODES))
        write_model(net(), EXAMPLE, folder / "float.onnx", packed=True)
        for kind, technique in INTEGER_FORMS:
            work = bench(kind)
            built = Built(work.task.model).then([action_of(technique, work.kind)], work.context())
            built.write(work.task, folder / f"{kind}-{technique}.onnx", packed=True)
        write_graph(export(net(), EXAMPLE), folder / "apart.onnx", lambda _: None, apart=True)  # type: ignore[arg-type,return-value] # nothing is named
        done.touch()
    return sorted(path for path in folder.iterdir() if path.suffix in (".onnx", PACKED))
