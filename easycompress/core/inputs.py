"""What a model takes and gives: one tensor, or several that belong together."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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


TWINS = (("start_logits", "end_logits"),)
"""Outputs that are an answer only together: where a span of tokens begins and where it ends."""

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


def unbundled(inputs: Inputs) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
    """Return what `bundled` made inputs of."""
    if isinstance(inputs, Tensor):
        return inputs
    return dict(zip(inputs.names, inputs.tensors, strict=True)) if inputs.names else inputs.tensors


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
    """Return the answer in an output: its first tensor, or the TWINS in it, stacked: (N, T) and (N, T) -> (N, T, 2).

    Raises TypeError where there is none.
    """
    if isinstance(output, Mapping) or hasattr(output, "keys"):
        for twins in TWINS:
            if all(isinstance(output.get(name), Tensor) for name in twins):
                return torch.stack([output[name] for name in twins], -1)
    return _first_tensor(output)


def _first_tensor(output: Any) -> Tensor:  # noqa: ANN401 - whatever a forward returns
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


def mapped(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """Return inputs with `change` done to each tensor."""
    return like(inputs, [change(tensor) for tensor in parts(inputs)])


def chunks(inputs: Inputs, size: int) -> Iterator[Inputs]:
    """Yield the samples in order, at most `size` at a time."""
    for start in range(0, len(inputs), size):
        yield inputs[start : start + size]


CHUNK_SAMPLES, CHUNK_BYTES = 128, 256_000_000
"""Samples answered at a time, and the bytes of their answers: a language model scores every word at every place.

More samples leave the processor's caches: with 500, LeNet5 and ResNet20 answer 1.2 to 3.5 times more slowly.
"""


def chunk_size(model: nn.Module, inputs: Inputs) -> int:
    """Return how many samples to ask a model at a time: CHUNK_SAMPLES, or as many as keep to CHUNK_BYTES."""
    if not len(inputs):
        return CHUNK_SAMPLES
    with torch.no_grad():
        each = 4 * answer(model, inputs[:1]).numel()
    return max(1, min(CHUNK_SAMPLES, CHUNK_BYTES // max(each, 1)))


def repeated(inputs: Inputs, count: int) -> Inputs:
    """Return `count` samples: those of `inputs`, over and over."""
    return mapped(inputs[torch.arange(count) % len(inputs)], torch.Tensor.contiguous)


def sample_shape(inputs: Inputs) -> tuple[int, ...]:
    """Return the shape of one sample, of the first tensor where there are several."""
    return tuple(parts(inputs)[0].shape[1:])


def are_images(inputs: Inputs) -> bool:
    """Tell whether inputs are one floating-point tensor (N, C, H, W)."""
    return isinstance(inputs, Tensor) and inputs.dim() == 4 and inputs.is_floating_point()  # noqa: PLR2004 - NCHW


def channels_last(inputs: Inputs) -> Inputs:
    """Return inputs with every (N, C, H, W) tensor's channels innermost in memory."""
    return mapped(
        inputs,
        lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t,  # noqa: PLR2004 - NCHW
    )


def has_channels_last(model: nn.Module) -> bool:
    """Tell whether a model holds filters whose channels are innermost in memory."""
    last = torch.channels_last
    filters = (weight for weight in model.parameters() if weight.dim() == 4)  # noqa: PLR2004 - (O, I, H, W)
    return any(each.is_contiguous(memory_format=last) and not each.is_contiguous() for each in filters)


def names_of(model: nn.Module, inputs: Inputs) -> tuple[str, ...]:
    """Return what the model's forward calls each of the inputs; `input_i` where its signature doesn't tell."""
    if isinstance(inputs, Bundle) and inputs.names:
        return inputs.names
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    listed = [p.name for p in inspect.signature(model.forward).parameters.values() if p.kind in kinds]
    count = len(parts(inputs))
    if count == 1:
        return (listed[0] if listed else "input",)
    return tuple(listed[i] if i < len(listed) else f"input_{i}" for i in range(count))


def in_order(model: nn.Module, inputs: Inputs) -> Inputs:
    """Return keyword inputs in the order of the model's forward; others, and names it doesn't list, as they are."""
    if not isinstance(inputs, Bundle) or not inputs.names:
        return inputs
    listed = list(inspect.signature(model.forward).parameters)
    places = sorted(
        range(len(inputs.names)),
        key=lambda i: listed.index(inputs.names[i]) if inputs.names[i] in listed else len(listed),
    )
    return Bundle(tuple(inputs.tensors[i] for i in places), tuple(inputs.names[i] for i in places))


def described(inputs: Inputs) -> str:
    """Return the sample shapes for people: `(3, 32, 32)`, or `input_ids (64,), attention_mask (64,)`."""
    if isinstance(inputs, Tensor):
        return str(tuple(inputs.shape[1:]))
    names = inputs.names or tuple(f"input {i}" for i in range(len(inputs.tensors)))
    return ", ".join(f"{name} {tuple(t.shape[1:])}" for name, t in zip(names, inputs.tensors, strict=True))


def tensors_of(output: Any) -> dict[str, Tensor]:  # noqa: ANN401 - whatever a forward returns
    """Return the tensors that an output consists of, its answer first, by name (`output`, `output_1` without names).

    Caches, hidden states and whatever else is nested in it are left out, unless the answer itself is among them.
    """
    answer_ = _first_tensor(output)
    if isinstance(output, Mapping) or hasattr(output, "items"):
        found = {str(name): value for name, value in output.items() if isinstance(value, Tensor)}
    elif isinstance(output, (tuple, list)):
        found = {f"output_{i}" if i else "output": value for i, value in enumerate(output) if isinstance(value, Tensor)}
    else:
        found = {"output": answer_}
    name = next((name for name, value in found.items() if value is answer_), "output")
    return {name: answer_, **{other: value for other, value in found.items() if other != name}}
