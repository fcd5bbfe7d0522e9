"""A small task, and runs of it in processes that are forked with everything imported: seconds each, ended at will."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import nn

from easycompress import api, cli  # noqa: F401 - api imports what a run needs
from easycompress.artifact.onnx_export import export
from easycompress.executor import limits
from easycompress.intake.data import load_data
from easycompress.intake.splits import make_splits
from easycompress.measure import latency

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FACTORY = """\
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(12, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.Flatten(),
            nn.Linear(384, 32), nn.ReLU(), nn.Linear(32, 10),
        )


class Hungry(Net):
    def forward(self, x):
        y = super().forward(x)
        if self.training:  # a megabyte a sample, more than once, for nothing
            y = y + 0 * (self[0].weight.sum() * x.repeat(1, 64, 8, 8)).tanh().mean()
        return y


make, hungry = Net, Hungry
"""

LOADERS = """\
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


class Pictures(TensorDataset):
    def __getitem__(self, place):
        if place >= 70 and Path(__file__).with_name("broken").exists():
            raise OSError("the share is gone")
        return super().__getitem__(place)


def splits():
    pictures, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    pictures = pictures.float().reshape(-1, 1, 8, 8) / 16
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    parts = dict(zip(("train", "validation", "test"), order.tensor_split((1000, 1400)), strict=True))
    return {name: DataLoader(Pictures(pictures[part], labels[part]), batch_size=32) for name, part in parts.items()}
"""

EPOCHS, RATE, BATCH = 12, 0.05, 64

GOALS = {
    "size": ("--objective", "size", "--format", "packed", "--target", "max", "--max-drop", "3%", "--budget", "8ep"),
    "compute": ("--objective", "compute", "--target", "max", "--max-drop", "2%", "--budget", "8ep"),
    "memory": ("--objective", "compute", "--target", "max", "--max-drop", "5%", "--budget", "4ep"),
    "loader": ("--objective", "compute", "--target", "max", "--max-drop", "5%", "--budget", "4ep"),
    "time": ("--objective", "size", "--target", "1.5x", "--max-drop", "10%", "--budget", "25s"),
}
"""The goals that are run. `memory` has a net that trains with much of it, `loader` data from a user's own function.

`time` is met with a margin: a drop far from its floor, a size far from its target.
"""

RECIPES = {
    "size": "steps: [{kind: lc}]",
    "compute": "steps: [{kind: structured-pruning}, {kind: distillation}]",
    "memory": "steps: [{kind: structured-pruning, strength: 0.2}, {kind: distillation}]",
    "loader": "steps: [{kind: structured-pruning, strength: 0.2}, {kind: distillation}]",
    "time": "steps: [{kind: qat-int8}]",
}

ATTEMPTS = 2
"""Attempts of a search, so that a run takes seconds."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (negative: the signal), what it printed, its seconds in all and at work."""

    code: int
    text: str
    seconds: float
    work: float

    @property
    def last(self) -> str:
        """The last line that it printed."""
        return self.text.rstrip().rpartition("\n")[2]


@dataclass
class Process:
    """A running process, and the file that takes both of its streams."""

    pid: int
    log: Path
    begin: float = field(default_factory=time.monotonic)
    status: int | None = None
    used: float = 0.0

    def running(self) -> bool:
        """Tell whether it still runs."""
        self._wait(os.WNOHANG)
        return self.status is None

    def work(self) -> float:
        """Return the seconds of a processor that it has taken: how far it is, however busy the machine."""
        if self.running():
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            self.used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # in user and in system mode
        return self.used

    def _wait(self, options: int) -> None:
        if self.status is None:
            pid, status, usage = os.wait4(self.pid, options)
            if pid:
                self.status, self.used = status, usage.ru_utime + usage.ru_stime

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.running():
            os.kill(self.pid, number)

    def end(self) -> Ended:
        """Wait for the end."""
        self._wait(0)
        code = os.waitstatus_to_exitcode(self.status or 0)
        return Ended(code, self.log.read_text(errors="replace"), time.monotonic() - self.begin, self.used)


@dataclass(frozen=True)
class Case:
    """The folder of the task: a small convolutional net on scikit-learn's digits."""

    folder: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def make(self) -> None:
        """Train the net and write it, in another process: this one must stay without threads."""
        if not (self.folder / "net.safetensors").exists():
            ended = self.fork(self._train).end()
            if ended.code:
                raise RuntimeError(ended.text)
        export(_net(), torch.zeros(2, 1, 8, 8))  # imports most of what a run would

    def _train(self) -> int:
        (self.folder / "net.py").write_text(FACTORY)
        (self.folder / "data.py").write_text(LOADERS)
        torch.manual_seed(0)
        model = _net()
        train = make_splits(load_data("digits", mean=None, std=None, base=None, seed=0), seed=0).train
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
        assert isinstance(train.inputs, torch.Tensor)
        assert train.targets is not None
        for _ in range(EPOCHS):
            for places in torch.randperm(len(train)).split(BATCH):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(train.inputs[places]), train.targets[places]).backward()
                optimizer.step()
        save_file(model.state_dict(), str(self.folder / "net.safetensors"))
        return 0

    def flags(self, goal: str, out: Path, *more: str) -> list[str]:
        """Return the command line of a goal."""
        recipe = self.folder / f"{goal}.yaml"
        recipe.write_text(RECIPES[goal])
        more = ("--recipe", str(recipe), *more)
        factory = "hungry" if goal == "memory" else "make"
        net = [str(self.folder / "net.safetensors"), "--factory", f"{self.folder / 'net.py'}:{factory}"]
        data = f"{self.folder / 'data.py'}:splits" if goal == "loader" else "digits"
        return ["compress", *net, "--data", data, "-o", str(out), "--threads", "1", *GOALS[goal], *more]

    def start(self, goal: str, out: Path, *more: str, before: Callable[[], None] | None = None) -> Process:
        """Start a run; `before` is called in its process first, to set a trap."""
        arguments = self.flags(goal, out, *more)

        def run() -> int:
            limits.MOST_ATTEMPTS = limits.LEAST_ATTEMPTS = ATTEMPTS
            latency.PATIENCE, latency.ROUNDS = 0.0, 1
            if before is not None:
                before()
            sys.argv = ["easycompress", *arguments]
            return _exit_code(cli.main)

        return self.fork(run)

    def run(self, goal: str, out: Path, *more: str, before: Callable[[], None] | None = None) -> Ended:
        """Run to the end."""
        return self.start(goal, out, *more, before=before).end()

    def fork(self, work: Callable[[], int]) -> Process:
        """Do `work` in a process of its own, whose exit code it returns."""
        log = self.folder / f"log-{next(self.numbers)}.txt"
        log.unlink(missing_ok=True)
        pid = os.fork()
        if pid:
            return Process(pid, log)
        code = 99
        with contextlib.suppress(BaseException):
            stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(stream, 1)
            os.dup2(stream, 2)
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - a descriptor
            sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115 - a descriptor
            signal.signal(signal.SIGINT, signal.default_int_handler)
            torch.set_num_threads(1)
            code = work()
        sys.stdout.flush()
        os._exit(code)


def _net() -> nn.Module:
    names: dict[str, Any] = {}
    exec(FACTORY, names)  # noqa: S102 - one source for the file and for this process
    made: nn.Module = names["make"]()
    return made


def _exit_code(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:  # noqa: BLE001 - as the interpreter would
        import traceback  # noqa: PLC0415

        traceback.print_exc()
        return 98
    return 0
