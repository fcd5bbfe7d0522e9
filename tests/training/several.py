"""What one of several processes does in test_parallel.py: the same trainings, each saves what they came to."""

from __future__ import annotations

import contextlib
import copy
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from easycompress.core.errors import BadInput
from easycompress.core.task import Split
from easycompress.quantization.fake import Activation
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.parallel import COPIED
from easycompress.training.speed import Speed
from easycompress.training.team import agreed, joined
from easycompress.training.terms import Labels

if TYPE_CHECKING:
    from easycompress.core.inputs import Inputs

PLAIN = Speed(threads=1, channels_last=False, bfloat16=False, step_seconds=0.0)
HALF = Speed(threads=1, channels_last=False, bfloat16=True, step_seconds=0.0)


class Net(nn.Module):
    """Batch norm over images, a range that is watched, and a layer that isn't used."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, bias=False)  # before a batch norm a bias has no gradient but noise
        self.norm = nn.BatchNorm2d(4)
        self.range = Activation(0.0, 1.0, rectified=True)
        self.unused = nn.Linear(3, 3)
        self.output = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.range(torch.relu(self.norm(self.conv(x)))).mean((2, 3)))


def noisy(inputs: Inputs) -> Inputs:
    assert isinstance(inputs, Tensor)
    return inputs + 0.1 * torch.randn_like(inputs)


def train(
    optimizer: str, pull: float = 0.0, checkpoint: Path | None = None, *, stop: bool = False, speed: Speed = PLAIN
) -> dict[str, Tensor]:
    """Return the weights after training on 67 samples: batches of 32 and 32, and one of 3."""
    torch.manual_seed(0)
    model = Net()
    model.range.watch(2)  # of the last batch each process would watch other samples
    split = Split(torch.randn(67, 1, 6, 6), torch.randint(3, (67,)))
    schedule = Schedule(epochs=2, lr=0.05 if optimizer == "sgd" else 0.01, optimizer=optimizer, batch=32)  # type: ignore[arg-type]

    def shrink(rate: float) -> None:
        with torch.no_grad():
            model.output.weight.mul_(1 - pull * rate)

    looks: list[None] = []

    def look(net: nn.Module) -> float:
        looks.append(None)
        if stop and len(looks) > 1:
            raise BadInput("stopped")
        return float(-net(split.inputs).detach().square().mean())

    hooks = Hooks(
        lambda net: agreed(lambda: look(net)),
        augment=noisy,
        after_step=shrink if pull else None,
    )
    history = fit(model, split, Labels(functional.cross_entropy), schedule, speed, hooks, checkpoint)
    rows = [[row["loss"], row["quality"]] for row in history.epochs]
    assert "forward" not in vars(model.norm)
    return copy.deepcopy(model.state_dict()) | {"rows": torch.tensor(rows)}


def results(folder: Path) -> dict[str, Tensor]:
    """Return what each training came to, under its name."""
    with contextlib.suppress(BadInput):
        train("sgd", checkpoint=folder / "state", stop=True)
    found = {
        "sgd": train("sgd"),
        "adamw": train("adamw"),
        "pulled": train("sgd", pull=0.3),
        "resumed": train("sgd", checkpoint=folder / "state"),
        "half": train("sgd", speed=HALF),
    }
    return named(found)


def on_copies(folder: Path) -> dict[str, Tensor]:
    """Return what came of training on copies, as with GPUs, whole and divided among the processes."""
    os.environ[COPIED] = "1"
    found = {"copied": train("sgd", pull=0.3)}
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    found |= {"divided": train("adamw", checkpoint=folder / "divided")}
    with contextlib.suppress(BadInput):
        found |= {"refused": train("sgd", pull=0.3)}
    return named(found)


def mixed() -> dict[str, Tensor]:
    """Return what came of training in Accelerate's own bfloat16: on the model itself, on a copy, and divided."""
    found = {"mixed": train("sgd"), "mixed pulled": train("sgd", pull=0.3)}
    os.environ[COPIED] = "1"
    found |= {"mixed copied": train("sgd", pull=0.3)}
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    return named(found | {"mixed divided": train("adamw")})


def named(found: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{name}: {key}": value for name, state in found.items() for key, value in state.items()}


def main() -> None:
    """Train with the other processes."""
    torch.set_num_threads(1)
    with joined() as crew:
        assert crew is not None
        folder = Path(sys.argv[1]) / str(crew.rank)
        folder.mkdir()
        with crew.in_step():
            found = mixed() if crew.accelerator.mixed_precision == "bf16" else results(folder) | on_copies(folder)
        save_file(found, folder / "found.safetensors")
        if not crew.leads:
            assert crew.tell() is None


if __name__ == "__main__":
    main()
