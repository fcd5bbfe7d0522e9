"""The state of an LC run on disk, without pickle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easycompress.codes.reading import read_code, under
from easycompress.lc.algorithm import Loop
from easycompress.lc.cstep import Theta
from easycompress.training.checkpoint import load_tensors, save_tensors, state_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from easycompress.lc.tasks import Task


def save_loop(path: Path, model: nn.Module, loop: Loop) -> None:
    """Write the model's weights, the codes, the multipliers and the rows, atomically."""
    tensors = {f"model.{name}": value for name, value in state_of(model).items()}
    tensors |= {f"beta.{name}": value for name, value in loop.beta.items()}
    forms = []
    for index, codes in enumerate(loop.theta.codes):
        forms.append([{"form": code.form, "meta": code.meta()} for code in codes])
        for place, code in enumerate(codes):
            tensors |= {f"theta.{index}.{place}.{name}": array for name, array in code.arrays().items()}
    save_tensors(path, tensors, {"step": loop.step, "rounds": loop.theta.rounds, "rows": loop.rows, "forms": forms})


def load_loop(path: Path, model: nn.Module, tasks: Sequence[Task]) -> Loop | None:
    """Read what save_loop wrote and put the weights into `model`.

    None, and the model as it was, where there is nothing to go on with: no file, a damaged one, or one of another model
    or of other tasks.
    """
    saved = load_tensors(path)
    if saved is None:
        return None
    tensors, meta = saved
    try:
        loop = _loop(tensors, meta)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    state = under(tensors, "model.")
    if _sizes(state) != _sizes(model.state_dict()) or not _fits(loop, model, tasks):
        return None
    model.load_state_dict(state)
    return loop


def _loop(tensors: dict[str, Tensor], meta: dict[str, Any]) -> Loop:
    """Rebuild the loop. Raises what reading a file that isn't one raises."""
    codes = tuple(
        tuple(
            read_code(entry["form"], entry["meta"], under(tensors, f"theta.{index}.{place}."))
            for place, entry in enumerate(entries)
        )
        for index, entries in enumerate(meta["forms"])
    )
    return Loop(int(meta["step"]), Theta(codes, int(meta["rounds"])), under(tensors, "beta."), list(meta["rows"]))


def _fits(loop: Loop, model: nn.Module, tasks: Sequence[Task]) -> bool:
    """Tell whether it is the state of these tasks on this model."""
    wanted = [[tuple(model.get_parameter(name).shape) for name in task.parameters] for task in tasks]
    found = [[code.shape for code in codes] for codes in loop.theta.codes]
    sizes = {name: tuple(model.get_parameter(name).shape) for task in tasks for name in task.parameters}
    betas = {name: tuple(value.shape) for name, value in loop.beta.items()}
    return found == wanted and betas == sizes and len(loop.rows) == loop.step > 0


def _sizes(state: dict[str, Tensor]) -> dict[str, tuple[object, ...]]:
    return {name: (value.dtype, *value.shape) for name, value in state.items()}
