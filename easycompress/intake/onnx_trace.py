"""A module made by onnx2pytorch -> its aten graph, with the numbers that its shapes are computed from known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

READS = (Tensor.item, Tensor.tolist, Tensor.__int__, Tensor.__index__, Tensor.__float__, Tensor.__bool__, Tensor.numpy)
"""Functions that take a number out of a tensor."""

GATHERS = (torch.cat, torch.stack, torch.concat, torch.where, torch.meshgrid, torch.broadcast_tensors)
"""Functions whose lists of tensors are tensors, never sizes."""


def trace(module: nn.Module, tensors: Sequence[Tensor]) -> fx.GraphModule:
    """Return what a module does to `tensors` as a graph of aten operators, its layers' whole.

    Numbers that it reads out of tensors become constants: that they don't depend on the inputs' values is for the
    caller to prove, on other inputs. Raises whatever the module raises.
    """
    with _Numbers():
        return make_fx(module, tracing_mode="real", pre_dispatch=True)(*tensors)


class _Numbers(TorchFunctionMode):
    """Reads numbers behind the back of the trace, which would refuse to follow them."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401 - as torch calls it
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        if func in READS:
            with disable_proxy_modes_tracing():
                return func(*args, **(kwargs or {}))
        if func not in GATHERS:
            args = tuple(_numbers(value) if isinstance(value, (tuple, list)) else value for value in args)
        return func(*args, **(kwargs or {}))


def _numbers(values: tuple[Any, ...] | list[Any]) -> tuple[Any, ...] | list[Any]:
    made = [_number(value) if isinstance(value, Tensor) else value for value in values]
    return tuple(made) if type(values) is tuple else made if type(values) is list else values


def _number(value: Tensor) -> Any:  # noqa: ANN401 - an integer, or the tensor as it is
    if value.dim() or value.is_floating_point() or value.dtype == torch.bool:
        return value
    with disable_proxy_modes_tracing():
        return value.item()
