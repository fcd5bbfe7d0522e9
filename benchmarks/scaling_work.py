"""The runs that `benchmarks.scaling` measures: nets of any size and depth, data of any number, one or two processes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch.nn import functional

from easycompress import api
from easycompress.core.progress import Silent
from easycompress.demo import make_demo

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = "steps:\n- kind: lc\n  strength: 0.4\n  epochs: 4\n"
"""Four epochs of learning-compression at 1.15 bits a weight: training, projection, writing and judging."""

EPOCHS = 4

USER = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, {width})
        self.blocks = nn.ModuleList([nn.Linear({width}, {width}) for _ in range({depth})])
        self.last = nn.Linear({width}, 10)

    def forward(self, x):
        x = torch.relu(self.first(x))
        for block in self.blocks:
            x = x + torch.relu(block(x)) / len(self.blocks)
        return self.last(x)


def make():
    return Net()


def part(count, seed):
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 10, (count,), generator=generator)
    return centers[labels] + 1.5 * torch.randn(count, 64, generator=generator), labels


def data():
    return {{"train": part({samples}, 1), "validation": part(1000, 2), "test": part(1000, 3)}}
"""
"""Noisy points around ten centres, 64 numbers each; a residual net of linear layers."""


@dataclass(frozen=True)
class Net:
    """A residual net of `depth` layers of `width` squared, and the samples that it is compressed on."""

    width: int
    depth: int
    samples: int


def prepare(folder: Path, net: Net) -> None:
    """Write factory, data, recipe and weights, trained for a hundred steps, into `folder`."""
    text = USER.format(**asdict(net))
    (folder / "user.py").write_text(text)
    (folder / "recipe.yaml").write_text(RECIPE)
    names: dict[str, Any] = {}
    exec(text, names)  # noqa: S102 - one source for the file and for this process
    torch.manual_seed(0)
    model = names["make"]()
    inputs, targets = names["part"](6400, 4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(100):
        piece = slice(64 * step, 64 * step + 64)
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs[piece]), targets[piece]).backward()  # type: ignore[no-untyped-call] # torch's own
        optimizer.step()
    save_file(model.state_dict(), folder / "model.safetensors")


def compress(folder: Path) -> dict[str, Any]:
    """Compress the net in `folder` by the recipe, in this process, and return what it took."""
    begin, cpu = time.perf_counter(), time.process_time()
    result = api.compress(
        folder / "model.safetensors", factory=f"{folder}/user.py:make", data=f"{folder}/user.py:data", objective="size",
        target="4x", max_drop="20%", format="packed", recipe=str(folder / "recipe.yaml"), budget=f"{EPOCHS}ep",
        threads=1, out=folder / "out",
    )  # fmt: skip
    report = result.report
    return {
        "seconds": round(time.perf_counter() - begin, 2), "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "parameters": report.baseline.params, "verdict": report.verdict, "ratio": report.ratio,
        "drop": report.drop.estimate, "epochs": sum(step.epochs for step in report.steps),
        "spent": report.environment.get("spent", {}),
    }  # fmt: skip


def measure_net(net: Net, folder: Path) -> dict[str, Any]:
    """Return what one run costs, in a process of its own so that its peak is its alone."""
    prepare(folder, net)
    command = [sys.executable, "-m", "benchmarks.scaling", "--measure", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this module
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


EXPLORE = ("--curves", "quantize,prune", "--epochs", "10", "--threads", "1", "--quiet")


def measure_explore(workers: int, folder: Path) -> dict[str, Any]:
    """Return what the same exploration costs with so many processes side by side, one thread each."""
    make_demo(folder, Silent())
    line = ["explore", "model.pt", *EXPLORE, "--workers", str(workers), "-o", "explored"]
    return _timed([sys.executable, "-m", "easycompress", *line], folder)


TRAIN = ("--objective", "size", "--target", "8x", "--max-drop", "5%", "--format", "packed", "--threads", "1", "--quiet")


def measure_launch(processes: int, folder: Path) -> dict[str, Any]:
    """Return what the run of measure_net costs on so many processes that `accelerate launch` starts."""
    prepare(folder, Net(1000, 4, 20_000))
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["accelerate.commands.launch", "--cpu", "--num_processes", str(processes), "--num_machines", "1",
                  "--mixed_precision", "no", "--dynamo_backend", "no", "-m"]  # fmt: skip
    line = ["easycompress", "compress", "model.safetensors", "--factory", "user.py:make", "--data", "user.py:data"]
    line += [*TRAIN, "--recipe", "recipe.yaml", "--budget", f"{EPOCHS}ep", "-o", "out"]
    return _timed([*start, *line], folder)


def _timed(command: list[str], folder: Path) -> dict[str, Any]:
    """Return the wall and processor seconds of a command and of all that it starts, and the largest one's peak."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)  # noqa: S603 - our own program
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    found: dict[str, Any] = {
        "seconds": round(seconds, 2), "peak_bytes": after.ru_maxrss * 1024, "exit": done.returncode,
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
    }  # fmt: skip
    if done.returncode not in {0, 1}:
        found["message"] = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
    return found
