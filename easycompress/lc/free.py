"""What remains free once a code's structure is settled, as parameters that gradients reach through the code.

Codebook entries, nonzero values, low-rank factors, halves, bucket values, scales. Biases and batch norm are parameters
anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from easycompress.codes.affine import Affine
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive
from easycompress.codes.half import Half
from easycompress.codes.hashed import Hashed
from easycompress.codes.lowrank import LowRank, from_matrix
from easycompress.codes.sparse import Sparse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easycompress.codes.base import Code

LARGEST_HALF = 65504.0
"""Nonzeros and factors are stored in float16."""


class _Gather(torch.autograd.Function):
    """values[places] whose gradient is summed by bincount: a scatter of a million gradients takes ten times as long."""

    @staticmethod
    def forward(context: Any, values: Tensor, places: Tensor) -> Tensor:  # noqa: ANN401 - torch's own type is private
        context.save_for_backward(places)
        context.count = len(values)
        return values[places]

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        (places,) = context.saved_tensors
        total = torch.bincount(places.flatten(), gradient.flatten().double(), minlength=context.count)
        return total.to(gradient.dtype), None


class _Shared(nn.Module):
    """Values that many weights share: w = values[places].

    A value's rate is divided by how many weights share it, by storing it times the root of that count: a step then
    moves the weights as far as one that moves them alone. A value of exactly zero stays zero: sparse stays sparse.
    """

    places: Tensor
    scale: Tensor

    def __init__(self, values: Tensor, places: Tensor) -> None:
        super().__init__()
        counts = torch.bincount(places.flatten(), minlength=len(values)).clamp_min(1).float()
        self.register_buffer("places", places)
        self.register_buffer("scale", torch.where(values == 0, torch.zeros_like(counts), counts.rsqrt()))
        self.values = nn.Parameter(values.float() * counts.sqrt())

    def now(self) -> Tensor:
        """Return the shared values."""
        return self.values * self.scale

    def forward(self, original: Tensor) -> Tensor:  # noqa: ARG002 - parametrize hands over what it replaces
        """Return the dense tensor."""
        dense: Tensor = _Gather.apply(self.now(), self.places)
        return dense


class _FreeCodebook(_Shared):
    def __init__(self, code: Codebook) -> None:
        super().__init__(code.entries.float(), code.indices.long())
        self.made = code

    def code(self) -> Code:
        """Return the code with the entries as they are now."""
        return Codebook(self.made.indices, self.now().detach())


class _FreeHashed(_Shared):
    def __init__(self, code: Hashed) -> None:
        super().__init__(code.values.float(), code.places().reshape(code.shape))
        self.made = code

    def code(self) -> Code:
        """Return the code with the values as they are now."""
        return Hashed(self.now().detach(), self.made.size, self.made.seed)


class _FreeSparse(nn.Module):
    positions: Tensor

    def __init__(self, code: Sparse) -> None:
        super().__init__()
        self.size = code.size
        self.register_buffer("positions", code.positions)
        self.values = nn.Parameter(code.values.half().float())

    def forward(self, original: Tensor) -> Tensor:
        """Return the dense tensor."""
        zeros = torch.zeros(original.numel(), dtype=torch.float32, device=self.values.device)
        return zeros.index_put((self.positions,), self.values).reshape(self.size)

    def code(self) -> Code:
        """Return the code with the values as they are now."""
        values = _half(self.values)
        real = values != 0
        return Sparse(self.positions[real], values[real], self.size)


class _FreeLowRank(nn.Module):
    def __init__(self, code: LowRank) -> None:
        super().__init__()
        self.size, self.layout = code.size, code.layout
        self.left, self.right = nn.Parameter(code.left.half().float()), nn.Parameter(code.right.half().float())

    def forward(self, original: Tensor) -> Tensor:  # noqa: ARG002 - parametrize hands over what it replaces
        """Return the dense tensor."""
        return from_matrix(self.left @ self.right, self.size, self.layout)

    def code(self) -> Code:
        """Return the code with the factors as they are now."""
        return LowRank(_half(self.left), _half(self.right), self.size, self.layout)


class _FreeHalf(nn.Module):
    def __init__(self, code: Half) -> None:
        super().__init__()
        self.values = nn.Parameter(code.values.half().float())

    def forward(self, original: Tensor) -> Tensor:  # noqa: ARG002 - parametrize hands over what it replaces
        """Return the dense tensor."""
        return self.values

    def code(self) -> Code:
        """Return the code with the values as they are now."""
        return Half(_half(self.values))


class _FreeAffine(nn.Module):
    """A scale is stored times the length of its integers: a step then moves the weights as far as one without a code.

    Else an integer of 127 would make the rate of its weight 16 000 times as high.
    """

    integers: Tensor
    lengths: Tensor

    def __init__(self, code: Affine) -> None:
        super().__init__()
        self.made = code
        flat = code.values.reshape(len(code.scale), -1).float()
        self.register_buffer("integers", code.values)
        self.register_buffer("lengths", torch.linalg.vector_norm(flat, dim=1).clamp_min(1))
        self.scales = nn.Parameter(code.scale.float() * self.lengths)

    def now(self) -> Tensor:
        """Return the scales."""
        return self.scales / self.lengths

    def forward(self, original: Tensor) -> Tensor:
        """Return the dense tensor."""
        return self.integers.float() * self.now().reshape([-1] + [1] * (original.dim() - 1))

    def code(self) -> Code:
        """Return the code with the scales as they are now."""
        return Affine(self.made.values, self.now().detach())


class _FreeSum(nn.Module):
    def __init__(self, parts: list[Any]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, original: Tensor) -> Tensor:
        """Return the dense tensor."""
        total: Tensor = self.parts[0](original)
        for part in self.parts[1:]:
            total = total + part(original)
        return total

    def code(self) -> Code:
        """Return the sum of the parts' codes."""
        return Additive(tuple(part.code() for part in self.parts))  # type: ignore[operator]  # a ModuleList is untyped


def _half(values: Tensor) -> Tensor:
    """Return values as they are stored, within what float16 holds."""
    return values.detach().clamp(-LARGEST_HALF, LARGEST_HALF).half().contiguous()


def free(code: Code) -> Any:  # noqa: ANN401 - one of the modules above
    """Return the module whose parameters are what is free in `code`: forward() is the dense tensor, code() the code."""
    if isinstance(code, Additive):
        return _FreeSum([free(part) for part in code.parts])
    kinds: dict[Any, Any] = {
        Codebook: _FreeCodebook,
        Sparse: _FreeSparse,
        LowRank: _FreeLowRank,
        Hashed: _FreeHashed,
        Affine: _FreeAffine,
        Half: _FreeHalf,
    }
    return kinds[type(code)](code)


def set_free(model: nn.Module, codes: Mapping[str, Code]) -> None:
    """Make every coded parameter of `model` computed from what is free in its code, in place.

    Parameters that are tied to it are computed from the same.
    """
    places = _places(model)
    for name, code in codes.items():
        parameter = model.get_parameter(name)
        values = free(code)
        values.learns = parameter.requires_grad
        parameter.requires_grad_(False)  # noqa: FBT003 - torch's own signature
        for module, attribute in places[parameter]:
            parametrize.register_parametrization(module, attribute, values, unsafe=True)


def settle(model: nn.Module, names: Mapping[str, Code]) -> dict[str, Code]:
    """Undo set_free, in place: the parameters become plain again and hold the dense values of the codes returned."""
    found: dict[str, Code] = {}
    freed: dict[str, Any] = {}
    for name in names:
        owner, _, attribute = name.rpartition(".")
        parametrizations: Any = model.get_submodule(owner).parametrizations
        freed[name] = parametrizations[attribute][0]
    computed = [
        (module, attribute)
        for module in model.modules()
        if parametrize.is_parametrized(module)
        for attribute, values in list(cast("Any", module.parametrizations).items())
        if any(values[0] is mine for mine in freed.values())
    ]
    for module, attribute in computed:
        parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)
    for name, values in freed.items():
        found[name] = values.code()
        parameter = model.get_parameter(name)
        with torch.no_grad():
            parameter.copy_(found[name].dense())
        parameter.requires_grad_(values.learns)
    return found


def _places(model: nn.Module) -> dict[nn.Parameter, list[tuple[nn.Module, str]]]:
    """Return, for every parameter, which attributes of which modules it is."""
    places: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for attribute, parameter in module._parameters.items():  # noqa: SLF001 - named_parameters() lists a tied one once
            if parameter is not None:
                places.setdefault(parameter, []).append((module, attribute))
    return places
