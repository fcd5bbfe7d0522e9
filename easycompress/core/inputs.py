"""What a model takes and gives: one tensor, or several that belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from torch import nn


@dataclass(frozen=True)
class Bundle:
    """Several tensors (N, ...) of the same N samples that a model takes together.

    `names` are the arguments they are passed to by keyword; empty: they are passed in order.
    """

    tensors: tuple[Tensor, ...]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, places: Tensor | slice) -> Bundle:
        return Bundle(tuple(tensor[places] for tensor in self.tensors), self.names)


Inputs: TypeAlias = Union[Tensor, Bundle]  # noqa: UP007 - evaluated at run time, on Python 3.10 too


def parts(inputs: Inputs) -> tuple[Tensor, ...]:
    """Return the tensors of an input, in order."""
    return inputs.tensors if isinstance(inputs, Bundle) else (inputs,)


def like(inputs: Inputs, tensors: Sequence[Tensor]) -> Inputs:
    """Return `tensors` put together as `inputs` are."""
    return Bundle(tuple(tensors), inputs.names) if isinstance(inputs, Bundle) else tensors[0]


def bundled(value: Tensor | Sequence[Tensor] | Mapping[str, Tensor]) -> Inputs:
    """Return a tensor as it is, a sequence in order, a mapping by keyword."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        return Bundle(tuple(value.values()), tuple(value))
    return Bundle(tuple(value))


def arguments(inputs: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Return the positional and the keyword arguments of a call."""
    if isinstance(inputs, Bundle) and inputs.names:
        return (), dict(zip(inputs.names, inputs.tensors, strict=True))
    return parts(inputs), {}


def call(model: nn.Module, inputs: Inputs) -> Any:  # noqa: ANN401 - whatever the module's forward returns
    """Return what the module's forward gives."""
    positional, keywords = arguments(inputs)
    return model(*positional, **keywords)


def answer(model: nn.Module, inputs: Inputs) -> Tensor:
    """Return the first tensor that the module's forward gives: its answer (N, ...)."""
    return first(call(model, inputs))


def first(output: Any) -> Tensor:  # noqa: ANN401 - whatever a forward returns
    """Return the first tensor of an output. Raises TypeError where there is none."""
    for tensor in _tensors(output):
        return tensor
    raise TypeError(f"the model's output, {type(output).__name__}, holds no tensor")


def _tensors(output: Any) -> Iterator[Tensor]:  # noqa: ANN401 - whatever a forward returns
    if isinstance(output, Tensor):
        yield output
    elif hasattr(output, "values"):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _tensors(value)


def joined(batches: Sequence[Inputs]) -> Inputs:
    """Return batches one after the other as one."""
    columns = zip(*(parts(batch) for batch in batches), strict=True)
    return like(batches[0], [torch.cat(column) for column in columns])
