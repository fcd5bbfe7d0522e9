"""From an observed graph to a lifted module that has been proven: same answers, any batch size, and it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from easycompress.core.errors import CannotCompress, one_line
from easycompress.core.inputs import first, tensors_of
from easycompress.intake.lift import in_evaluation, lift
from easycompress.intake.lift_batch import REMEDY, Choices, View, follow, observe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TOLERANCE = 1e-4
"""Largest difference of answers, relative to the largest of them or to 1: layers may pick other kernels."""

JITTER = 0.05
"""Standard deviation of what is added to floating inputs so that the samples of a batch differ."""

EXAMPLE = "example"
"""Under which a lifted module's `meta` keeps the inputs that it was exported with, a tuple of tensors in order."""

TRIALS = 100
"""How many ways to place the batch in the views of a graph are tried."""

MORE = 2
"""Samples that another batch has more than the example."""


def lifted(
    source: fx.GraphModule, example: Sequence[Tensor], where: str, names: Mapping[int, str] | None = None
) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """Return the module of layers that a graph stands for, in evaluation mode, and notes for the user.

    `example` are the tensors that it was exported with, in order. Changes `source`. Raises CannotCompress, beginning
    with `where`: fixed to one batch size, other answers, an operator without a gradient.
    """
    trained = in_evaluation(source)
    notes = ["exported in training mode; it is measured in evaluation mode"] if trained else []
    batch = len(example[0]) if example and example[0].dim() else 0
    if not batch:
        raise CannotCompress(f"{where}: its first input has no batch dimension; {REMEDY}")
    with torch.no_grad():
        observe(source, example)
        module, single = lift(source, names), source
        if not _any_batch(module, single, example):
            single = fx.GraphModule(source, _copied(source))  # answers as it was exported
            module = _following(source, single, example, where, names)
            notes.append(f"exported for a batch of exactly {batch}; its sizes were made to follow the batch")
        _same(module, single, example, where)
    _trains(module, example, where)
    module.meta[EXAMPLE] = tuple(example)
    return module, tuple(notes)


def _copied(source: fx.GraphModule) -> fx.Graph:
    graph = fx.Graph()
    graph.output(graph.graph_copy(source.graph, {}))
    return graph


def _following(
    source: fx.GraphModule,
    single: fx.GraphModule,
    example: Sequence[Tensor],
    where: str,
    names: Mapping[int, str] | None,
) -> fx.GraphModule:
    """Return the module of a graph whose sizes follow the batch, the first that is proven to.

    Where a view may hold the batch in several places they are tried in turn, the same for all views of those shapes.
    """
    batch, fault = len(example[0]), ""
    waiting: list[Choices] = [{}]
    for _ in range(TRIALS):
        if not waiting:
            break
        choices, open_ = waiting.pop(0), dict[View, int]()
        trial = fx.GraphModule(source, _copied(source))
        try:
            follow(trial, _other(example), batch, choices, open_)
            observe(trial, example)
            module = lift(trial, names)
            if _any_batch(module, single, example):
                return module
        except CannotCompress as error:
            fault = fault or f" at {error}"
        last = max((place for place, view in enumerate(open_) if view in choices), default=-1)
        waiting += [choices | {view: i} for view in list(open_)[last + 1 :] for i in range(1, open_[view])]
    raise CannotCompress(f"{where}: fixed to a batch of {batch}{fault}; {REMEDY}")


def _other(example: Sequence[Tensor]) -> list[Tensor]:
    """Return inputs of MORE samples more, no two alike; inputs that aren't per sample stay as they are."""
    batch = len(example[0])
    generator = torch.Generator().manual_seed(0)
    made = []
    for tensor in example:
        if not tensor.dim() or len(tensor) != batch:
            made.append(tensor)
            continue
        rows = [tensor[i % batch].roll(i // batch, -1) if tensor.dim() > 1 else tensor[i % batch]
                for i in range(batch + MORE)]  # fmt: skip
        other = torch.stack(rows)
        if other.is_floating_point():
            other = other + JITTER * torch.randn(other.shape, generator=generator).to(other.dtype)
        made.append(other)
    return made


def _any_batch(module: fx.GraphModule, single: fx.GraphModule, example: Sequence[Tensor]) -> bool:
    """Tell whether `module` answers for each sample of a larger batch as `single` does for that sample alone.

    `single` is a graph of bare operators, which is run with the example's batch only: some, recurrent ones among them,
    read beyond their memory where a size doesn't fit. Layers check theirs.
    """
    batch, other = len(example[0]), _other(example)
    count = batch + MORE
    try:
        together = tensors_of(module(*other))
        for place in (0, count - 1):
            alone = [t[place].expand(batch, *t.shape[1:]).contiguous() if t.dim() and len(t) == count else t
                     for t in other]  # fmt: skip
            for name, answer in tensors_of(single(*alone)).items():
                per_sample = answer.dim() and len(answer) == batch
                if per_sample and len(together[name]) != count:
                    return False
                if per_sample and not _close(together[name][place], answer[0]):
                    return False
    except (RuntimeError, IndexError, TypeError, ValueError, AssertionError):
        return False
    return True


def _same(module: fx.GraphModule, source: fx.GraphModule, example: Sequence[Tensor], where: str) -> None:
    before, after = tensors_of(source(*example)), tensors_of(module(*example))
    wrong = [name for name in before if not _close(after[name], before[name])]
    if wrong:
        raise CannotCompress(
            f"{where}: its graph can't be taken apart into layers that answer as it does ({wrong[0]} differs); "
            "give its state dict with --factory"
        )


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    if not other.numel():
        return True
    scale = max(1.0, float(other.double().abs().max()))
    return bool((one.double() - other.double()).abs().max() <= TOLERANCE * scale)


def _trains(module: fx.GraphModule, example: Sequence[Tensor], where: str) -> None:
    """Refuse a module that no gradient gets through."""
    parameters = [p.requires_grad_() for p in module.parameters() if p.is_floating_point()]
    if not parameters:
        return
    try:
        with torch.enable_grad():  # whoever reads the module may have turned them off
            answer = first(module(*example))
            if answer.is_floating_point():
                torch.autograd.grad(answer.sum(), parameters, allow_unused=True)
    except RuntimeError as error:
        raise CannotCompress(
            f"{where}: it can't be trained on: {one_line(error, 140)}; export the module in training mode, with "
            "gradients enabled, or give its state dict with --factory"
        ) from error
