"""easycompress: compress a PyTorch model to a stated goal, and prove that it did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easycompress.core.errors import BadInput, CannotCompress, EasyCompressError

if TYPE_CHECKING:
    from easycompress.api import Result, compress, load, plan

__all__ = ["BadInput", "CannotCompress", "EasyCompressError", "Result", "compress", "load", "plan"]

__version__ = "0.4.0"

_LAZY = ("Result", "compress", "load", "plan")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - module attributes by name
    """Import torch only when something that needs it is asked for."""
    if name in _LAZY:
        from easycompress import api  # noqa: PLC0415 - torch takes seconds to import

        return getattr(api, name)
    raise AttributeError(f"module 'easycompress' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
