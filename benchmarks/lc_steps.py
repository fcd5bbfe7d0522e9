"""The timed rows of the LC benchmark: C steps, the L step's added cost, file sizes against their bounds, loading."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from easycompress.artifact.write import write_model
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive
from easycompress.codes.packing import gap_bits
from easycompress.codes.sparse import sparse_from
from easycompress.core.task import Split
from easycompress.lc.algorithm import Pull
from easycompress.lc.cstep import c_step
from easycompress.lc.projections.pruned import ConstraintL0
from easycompress.lc.projections.quantized import AdaptiveQuantization
from easycompress.lc.tasks import each, parse_tasks, weights_of
from easycompress.measure.latency import time_files
from easycompress.measure.runtime import Runtime
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.speed import Speed
from easycompress.training.terms import Labels

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from torch import Tensor

MANY = 15_000_000
TIMES = 5


def weights(count: int, seed: int = 0) -> Tensor:
    """Return heavy-tailed weights (count,), as trained layers have: normal times a log-normal scale a block."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.exp(0.5 * torch.randn(count // 1000 + 1, generator=generator)).repeat_interleave(1000)[:count]
    return 0.05 * scale * torch.randn(count, generator=generator)


def seconds(run: Callable[[], object], times: int = TIMES) -> float:
    """Return the least of a few timings: what the machine can do when nothing disturbs it."""
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        found.append(time.perf_counter() - begin)
    return round(min(found), 4)


def codebooks(_: argparse.Namespace) -> dict[str, float]:
    """Time codebook and assignments of 15 million weights, cold and warm."""
    w = weights(MANY)
    found = {}
    for k in (2, 16, 256):
        projection = AdaptiveQuantization(k)
        cold = projection.project([w], 1.0)
        found[f"k={k} cold"] = seconds(lambda p=projection: p.project([w], 1.0), 3)  # type: ignore[misc]
        found[f"k={k} warm"] = seconds(lambda p=projection, c=cold: p.project([w], 1.0, c), 3)  # type: ignore[misc]
    return found


def pruning(_: argparse.Namespace) -> dict[str, float]:
    """Time the l0 projection of 15 million weights, and counting the bits of its index."""
    w = weights(MANY)
    code = ConstraintL0(share=0.03).project([w], 1.0)[0]
    positions = code.positions  # type: ignore[attr-defined]  # a Sparse
    return {
        "l0 3 %": seconds(lambda: ConstraintL0(share=0.03).project([w], 1.0), 3),
        "index bits": seconds(lambda: gap_bits(positions, 16)),
    }


class LeNet300(nn.Module):
    """784-300-100-10, tanh, as in the papers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(784, 300), nn.Linear(300, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 10)."""
        return self.fc3(torch.tanh(self.fc2(torch.tanh(self.fc1(x)))))  # type: ignore[no-any-return]


def _lenet300() -> nn.Module:
    torch.manual_seed(0)
    return LeNet300()


def additive(_: argparse.Namespace) -> dict[str, float]:
    """Time the Q+P C step on LeNet300's shapes, cold and warm, with its rounds."""
    model = _lenet300()
    names = weights_of(model)
    tasks = parse_tasks(model, {**each(names, AdaptiveQuantization(2)), names: ConstraintL0(share=0.01)})
    w = {name: weights(model.get_parameter(name).numel(), i).reshape(model.get_parameter(name).shape)
         for i, name in enumerate(names)}  # fmt: skip
    cold = c_step(tasks, w, 1.0)
    moved = {name: value + 0.001 * torch.randn_like(value) for name, value in w.items()}
    return {"cold": seconds(lambda: c_step(tasks, w, 1.0)), "cold rounds": cold.rounds,
            "warm": seconds(lambda: c_step(tasks, moved, 1.0, cold)),
            "warm rounds": c_step(tasks, moved, 1.0, cold).rounds}  # fmt: skip


def l_step(_: argparse.Namespace) -> dict[str, float]:
    """Measure what the proximal pull adds to a training epoch of LeNet300, in alternating runs."""
    split = Split(torch.randn(20_000, 784), torch.randint(10, (20_000,)))
    term = Labels(nn.functional.cross_entropy)
    speed = Speed(threads=1, channels_last=False, bfloat16=False, step_seconds=0.0)
    schedule = Schedule(epochs=1, lr=0.01, batch=128, shape="flat")
    times: dict[bool, list[float]] = {False: [], True: []}
    for _index in range(3 * TIMES):
        for pulled, taken in times.items():
            model = _lenet300()
            held: dict[str, Tensor] = {name: model.get_parameter(name) for name in weights_of(model)}
            pull = Pull(held, {name: value.detach().clone() for name, value in held.items()}, 0.1)
            begin = time.perf_counter()
            fit(model, split, term, schedule, speed, Hooks(None, after_step=pull if pulled else None), None)
            taken.append(time.perf_counter() - begin)
    plain, with_pull = (statistics.median(times[key]) for key in (False, True))
    return {"plain epoch": round(plain, 3), "with the pull": round(with_pull, 3), "ratio": round(with_pull / plain, 3)}


class Wide(nn.Module):
    """Three layers of 1.3 million weights each."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(1152, 1152) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 1152)."""
        return self.layers(x)  # type: ignore[no-any-return]


def files(_: argparse.Namespace) -> dict[str, Any]:
    """Measure loading and speed of a self-decoding file of 4 million weights, Q+P, beside the dense one."""
    model = Wide().eval()
    example = torch.randn(2, 1152)
    codes: dict[str, Any] = {}
    dense = copy.deepcopy(model)
    for index, name in enumerate(weights_of(model)):
        w = weights(1152 * 1152, index).reshape(1152, 1152)
        book = AdaptiveQuantization(2).project([w], 1.0)[0]
        rest = w - book.dense()
        sparse = sparse_from(rest, rest.abs() > rest.abs().flatten().kthvalue(int(0.97 * rest.numel())).values)
        assert isinstance(book, Codebook)
        codes[name] = Additive((book, sparse))
        for net in (model, dense):
            net.get_parameter(name).data.copy_(codes[name].dense())
    with tempfile.TemporaryDirectory() as folder:
        plain = write_model(dense, example, Path(folder) / "dense.onnx")
        coded = write_model(model, example, Path(folder) / "coded.onnx", codes=codes)
        load = [seconds(lambda p=path: Runtime(p, 2)) for path in (plain, coded)]  # type: ignore[misc]
        times = time_files([plain, coded], example, 1, 2)
        millions = 3 * 1.152**2
        return {
            "bytes dense": plain.stat().st_size, "bytes coded": coded.stat().st_size,
            "load dense": load[0], "load coded": load[1],
            "load coded per million weights": round(load[1] / millions, 4),
            "latency coded / dense": round(times[1].median / times[0].median, 3),
        }  # fmt: skip


STEPS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "C step, codebook of 15 million weights, seconds": codebooks,
    "C step, pruning of 15 million weights, seconds": pruning,
    "C step, Q+P on LeNet300, seconds": additive,
    "L step, seconds": l_step,
    "self-decoding file of 4 million weights": files,
}
"""Every timed row by its name."""
