"""What a technique is."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from easycompress.training.curve import curve_of
from easycompress.training.team import agreed
from easycompress.training.troubles import Troubles

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from torch import nn

    from easycompress.codes.base import Code
    from easycompress.core.inputs import Inputs
    from easycompress.core.outcome import CurvePoint
    from easycompress.core.plan import Action
    from easycompress.core.profile import ModelProfile
    from easycompress.core.progress import Progress
    from easycompress.core.task import Task
    from easycompress.training.fit import History
    from easycompress.training.speed import Speed
    from easycompress.training.terms import Teacher

Result = TypeVar("Result")

Need = Literal["calibration", "training", "labels"]

FilePass = Callable[["onnx.ModelProto"], "onnx.ModelProto"]
"""What a technique still has to do to the exported graph: integer operators exist only there."""


@dataclass(frozen=True)
class Context:
    """What a technique may use. Randomness comes from `seed` alone.

    `epochs` is what this action may train, 0 for none; `samples` limits an epoch (0: the whole split).
    `recover(model, index)` trains a few epochs between pruning steps, None without training. `evaluate(model)` is the
    quality on *select* in PyTorch, `enough`, `hopeless` and `out_of_time` as in training.fit.Hooks. `checkpoint(part)`
    is where training is saved, epoch by epoch; a technique names its parts. `memo` remembers, for the whole run, what
    took long to measure: keys say of which weights. `once(key, make)` does so for JSON values, also in a resumed run.
    `troubles` takes note of what goes wrong in training, `curve` of how it goes: each technique tells by `trained`.
    """

    task: Task
    profile: ModelProfile
    seed: int
    progress: Progress
    epochs: int = 0
    samples: int = 0
    speed: Speed | None = None
    teacher: Callable[[], Teacher] | None = None
    evaluate: Callable[[nn.Module], float] | None = None
    enough: Callable[[float], bool] = lambda _: False
    hopeless: Callable[[Sequence[float], int], bool] = lambda _, __: False
    out_of_time: Callable[[float], bool] = lambda _: False
    recover: Callable[[nn.Module, int], int] | None = None
    checkpoint: Callable[[str], Path] | None = None
    memo: dict[str, Any] = field(default_factory=dict)
    once: Callable[[str, Callable[[], Any]], Any] = lambda _, make: make()
    troubles: Troubles = field(default_factory=Troubles)
    curve: list[CurvePoint] = field(default_factory=list)

    def trained(self, part: str, history: History) -> None:
        """Take note of how the training of `part` went, an interrupted run's epochs included."""
        self.curve.extend(curve_of(part, history, higher_is_better=self.task.metric.higher_is_better))

    def remembered(self, what: str, model: nn.Module, make: Callable[[], Result]) -> Result:
        """Return what `make()` returned when `what` was last asked of a model with these very weights, or make it."""
        key = f"{what}: {checksum(model)}"

        def known() -> Result:
            if key not in self.memo:
                self.memo[key] = make()
            result: Result = self.memo[key]
            return result

        return agreed(known)  # of several processes one remembers more than the others


@dataclass(frozen=True)
class Applied:
    """What a technique made.

    `model` is changed in place or new. `codes` are the stored forms of parameters, by name. `record` is JSON-able and
    enough to rebuild the structure on a fresh module. `history` is there when something was trained.
    """

    model: nn.Module
    record: dict[str, Any]
    codes: dict[str, Code] = field(default_factory=dict)
    file_pass: FilePass | None = None
    history: History | None = None
    epochs: int = 0


def checksum(model: nn.Module) -> int:
    """Return a number that two models share only if they have the same tensors under the same names."""
    value = 0
    for name, tensor in model.state_dict().items():
        data = tensor.detach().cpu().contiguous()
        value = zlib.crc32(f"{name} {data.dtype} {tuple(data.shape)}".encode(), value)
        value = zlib.crc32(data.reshape(-1).numpy().data, value) if data.numel() else value
    return value


ActionT_contra = TypeVar("ActionT_contra", bound="Action", contravariant=True)


class Technique(Protocol[ActionT_contra]):
    """One way to compress."""

    @property
    def name(self) -> str:
        """The name in recipes and records."""
        ...

    @property
    def settings(self) -> type[Action]:
        """The type of its actions."""
        ...

    @property
    def needs(self) -> frozenset[Need]:
        """What it can't do without."""
        ...

    @property
    def source(self) -> str:
        """Where it comes from."""
        ...

    def refuses(self, profile: ModelProfile, action: ActionT_contra) -> str | None:
        """Return in one line why this model can't be treated that way, or None."""
        ...

    def apply(self, model: nn.Module, action: ActionT_contra, context: Context) -> Applied:
        """Treat `model`, a copy that belongs to this call."""
        ...

    def replay(self, model: nn.Module, record: dict[str, Any], example: Inputs) -> nn.Module:
        """Give a fresh module the structure that `record` describes; weights come later, from the state dict."""
        ...
