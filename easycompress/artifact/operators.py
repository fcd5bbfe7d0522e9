"""The exporter's tables of operators, made once a process: torch makes them anew for every export.

On a small model that is half of the export (0.59 s, 0.21 s without). Where these tables are made is torch's own affair:
nothing is remembered where a version of torch does it elsewhere.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REGISTRY = "torch.onnx._internal.exporter._registration"
UTILITIES = "torch._export.utils"

_tables: dict[Any, Any] = {}
_seen: set[int] = set()


@contextlib.contextmanager
def remembered_operators() -> Iterator[None]:
    """Let exports within the block share the tables."""
    with contextlib.ExitStack() as stack:
        owner = getattr(_module(REGISTRY), "ONNXRegistry", None)
        if (made := getattr(owner, "from_torchlib", None)) is not None:
            stack.enter_context(_replaced(owner, "from_torchlib", staticmethod(_once_a_setting(made)), made))
        utilities = _module(UTILITIES)
        if (fill := getattr(utilities, "_materialize_cpp_cia_ops", None)) is not None:
            stack.enter_context(_replaced(utilities, fill.__name__, _when_operators_joined(fill), fill))
        yield


def _once_a_setting(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return `make` for the table of ONNX functions; torchvision's operators join it when torchvision is imported."""

    def remembered(*settings: Any, **named: Any) -> Any:  # noqa: ANN401 - torch's own
        key = (settings, tuple(sorted(named.items())), "torchvision" in sys.modules)
        if key not in _tables:
            _tables[key] = make(*settings, **named)
        return _tables[key]

    return remembered


def _when_operators_joined(fill: Callable[[], None]) -> Callable[[], None]:
    """Return `fill`, which names every operator of the dispatcher in torch.ops, once for each number of operators.

    An export calls it twice for each of some thirty namespaces; operators are only ever added.
    """

    def remembered() -> None:
        count = len(torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd"))  # noqa: SLF001 - as `fill` asks
        if count not in _seen:
            fill()
            _seen.add(count)

    return remembered


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: object, original: object) -> Iterator[None]:  # noqa: ANN401 - a class or module
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _module(name: str) -> Any:  # noqa: ANN401 - a module, or None
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
