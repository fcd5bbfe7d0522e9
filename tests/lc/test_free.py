from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from easycompress.codes.affine import Affine, quantize_per_channel
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive
from easycompress.codes.half import Half
from easycompress.codes.hashed import Hashed
from easycompress.codes.lowrank import LowRank
from easycompress.codes.sparse import Sparse, sparse_from
from easycompress.lc.free import free, set_free, settle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easycompress.codes.base import Code

SIZE = (4, 3, 3, 3)
COUNT = 4 * 27


def rand(*size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(sum(size)))


def codebook(size: tuple[int, ...] = SIZE) -> Codebook:
    indices = torch.randint(4, size, generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    return Codebook(indices, torch.tensor([-0.7, 0.0, 0.2, 0.9, 5.0]))  # the last one is nobody's


def sparse(size: tuple[int, ...] = SIZE) -> Sparse:
    dense = rand(*size)
    return sparse_from(dense, dense.abs() > 1)


CODES: dict[str, Code] = {
    "codebook": codebook(),
    "sparse": sparse(),
    "nothing": Sparse(torch.zeros(0, dtype=torch.int64), torch.zeros(0).half(), SIZE),
    "low rank": LowRank(rand(4, 2).half(), rand(2, 27).half(), SIZE, "scheme-1"),
    "scheme 2": LowRank(rand(12, 2).half(), rand(2, 9).half(), SIZE, "scheme-2"),
    "rank 0": LowRank(rand(4, 0).half(), rand(0, 27).half(), SIZE),
    "hashed": Hashed(rand(10), SIZE, 5),
    "affine": quantize_per_channel(rand(*SIZE)),
    "affine, one scale": Affine(quantize_per_channel(rand(*SIZE)).values, torch.tensor([0.01])),
    "half": Half(rand(*SIZE).half()),
    "sum": Additive((codebook(), sparse(), LowRank(rand(4, 1).half(), rand(1, 27).half(), SIZE))),
    "sum of sums": Additive((Additive((codebook(), Half(rand(*SIZE).half()))), Hashed(rand(6), SIZE))),
}

EVERY = pytest.mark.parametrize("code", CODES.values(), ids=CODES.keys())


def made(code: Code) -> Any:
    return free(code)


def naive(code: Code) -> tuple[dict[str, Tensor], Tensor]:  # noqa: PLR0911 - a case a form
    """Return leaves by name, and the dense tensor as plain indexing and products of them."""
    if isinstance(code, Codebook):
        entries = code.entries.clone().requires_grad_()
        return {"entries": entries}, entries[code.indices.long()]
    if isinstance(code, Hashed):
        values = code.values.clone().requires_grad_()
        return {"values": values}, values[code.places()].reshape(code.shape)
    if isinstance(code, Sparse):
        values = code.values.float().requires_grad_()
        return {"values": values}, torch.zeros(COUNT).scatter(0, code.positions, values).reshape(SIZE)
    if isinstance(code, LowRank):
        left, right = code.left.float().requires_grad_(), code.right.float().requires_grad_()
        product = left @ right
        if code.layout == "scheme-2":
            return {"left": left, "right": right}, product.reshape(4, 3, 3, 3).permute(0, 2, 1, 3)
        return {"left": left, "right": right}, product.reshape(SIZE)
    if isinstance(code, Affine):
        scale = code.scale.clone().requires_grad_()
        return {"scales": scale}, code.values.float() * scale[:, None, None, None]
    if isinstance(code, Half):
        values = code.values.float().requires_grad_()
        return {"values": values}, values * 1
    assert isinstance(code, Additive)
    leaves: dict[str, Tensor] = {}
    total = torch.zeros(SIZE)
    for index, part in enumerate(code.parts):
        own, dense = naive(part)
        leaves |= {f"parts.{index}.{name}": leaf for name, leaf in own.items()}
        total = total + dense
    return leaves, total


@EVERY
def test_it_begins_as_the_code(code: Code) -> None:
    module = made(code)
    assert torch.allclose(module(torch.zeros(SIZE)), code.dense(), rtol=1e-6, atol=1e-7)
    again = module.code()
    assert again.form == code.form
    assert again.shape == SIZE
    assert torch.allclose(again.dense(), code.dense(), rtol=1e-6, atol=1e-7)


@EVERY
def test_gradients_are_those_of_a_naive_implementation(code: Code) -> None:
    weight = rand(*SIZE, 2)[..., 0]
    module = made(code)
    (torch.sin(module(torch.zeros(SIZE))) * weight).sum().backward()
    leaves, dense = naive(code)
    (torch.sin(dense) * weight).sum().backward()
    found = dict(module.named_parameters())
    assert len(found) == len(leaves)
    for name, leaf in leaves.items():
        parameter = found.get(name, found.get(name.replace("entries", "values")))
        assert parameter is not None
        assert parameter.grad is not None
        owner = module.get_submodule(name.rpartition(".")[0])
        expected = torch.zeros_like(parameter) if leaf.grad is None else leaf.grad
        if hasattr(owner, "scale"):  # a shared value is held times the root of how many share it; a zero is held fast
            expected = expected * owner.scale
        if hasattr(owner, "lengths"):  # a scale is held times the length of its integers
            expected = expected / owner.lengths
        assert torch.allclose(parameter.grad, expected, rtol=1e-4, atol=1e-5), name


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


def trained(model: nn.Module, codes: Mapping[str, Code], rate: float = 0.01) -> dict[str, Code]:
    set_free(model, codes)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate, momentum=0.9, foreach=True)
    for step in range(3):
        optimizer.zero_grad()
        inputs = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(step))
        ((model(inputs) - 1) ** 2).mean().backward()
        optimizer.step()
    return settle(model, codes)


@EVERY
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_training_moves_the_values_and_keeps_the_structure(code: Code, layout: torch.memory_format) -> None:
    model = Net()
    names = {name for name, _ in model.named_parameters()}
    with torch.no_grad():
        model.conv.weight.copy_(code.dense())
    model.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub lacks it
    bias = model.conv.bias
    assert bias is not None
    before = bias.detach().clone()
    after = trained(model, {"conv.weight": code})["conv.weight"]
    assert {name for name, _ in model.named_parameters()} == names
    assert type(model.conv) is nn.Conv2d
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(model.conv.weight.detach(), after.dense())
    assert torch.isfinite(after.dense()).all()
    assert after.dense().is_contiguous()
    assert not torch.equal(bias.detach(), before)
    assert same_structure(code, after)
    if code is not CODES["nothing"] and code is not CODES["rank 0"]:
        assert not torch.equal(after.dense(), code.dense())


def same_structure(code: Code, after: Code) -> bool:
    if isinstance(code, Additive):
        assert isinstance(after, Additive)
        return all(same_structure(*pair) for pair in zip(code.parts, after.parts, strict=True))
    fixed: dict[type, tuple[str, ...]] = {
        Codebook: ("indices",), Sparse: ("positions",), Affine: ("values",), Hashed: (), LowRank: (), Half: (),
    }  # fmt: skip
    sizes = {name: (array.shape, array.dtype) for name, array in code.arrays().items()}
    return (
        type(code) is type(after)
        and sizes == {name: (array.shape, array.dtype) for name, array in after.arrays().items()}
        and code.meta() == after.meta()
        and all(torch.equal(getattr(code, name), getattr(after, name)) for name in fixed[type(code)])
    )


def test_zero_stays_zero() -> None:
    code = codebook()
    model = Net()
    after = trained(model, {"conv.weight": code}, rate=0.5)["conv.weight"]
    assert isinstance(after, Codebook)
    assert float(after.entries[1]) == 0.0
    assert torch.equal(after.dense() == 0, code.dense() == 0)
    sparse_code = CODES["sparse"]
    zeros = sparse_code.dense() == 0
    after = trained(Net(), {"conv.weight": sparse_code})["conv.weight"]
    assert int((after.dense()[zeros] != 0).sum()) == 0


def test_a_shared_value_moves_the_weights_as_far_as_one_that_is_alone() -> None:
    """One step on a loss that is the weights' squares: a weight's move doesn't depend on how many share its value."""
    for count in (1, 100):
        module = made(Codebook(torch.zeros(count, dtype=torch.uint8), torch.ones(1)))
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        (module(torch.zeros(count)) ** 2).sum().backward()
        optimizer.step()
        assert float(module.code().entries) == pytest.approx(0.8, rel=1e-5)


def test_a_scale_moves_the_weights_as_far_as_one_without_a_code() -> None:
    for integer in (1, 127):
        for count in (1, 50):
            code = Affine(torch.full((2, count), integer, dtype=torch.int8), torch.full((2,), 1 / integer))
            module = made(code)
            optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
            (module(torch.zeros(2, count)) ** 2).sum().backward()
            optimizer.step()
            assert torch.allclose(module.code().dense(), torch.full((2, count), 0.8), rtol=1e-5)
            assert torch.equal(code.dense(), torch.ones(2, count))  # the code itself never changes


def test_values_that_float16_rounds_to_nothing_are_dropped_and_large_ones_held() -> None:
    module = made(Sparse(torch.tensor([1, 2, 5]), torch.tensor([1.0, 2.0, 3.0]).half(), (6,)))
    with torch.no_grad():
        module.values.copy_(torch.tensor([1e-9, 1e9, 3.0]))
    code = module.code()
    assert code.positions.tolist() == [2, 5]
    assert code.dense().tolist() == [0, 0, 65504, 0, 0, 3]
    low = made(LowRank(torch.ones(2, 1).half(), torch.ones(1, 2).half(), (2, 2)))
    with torch.no_grad():
        low.left.fill_(1e6)
    assert float(low.code().left.max()) == 65504


def test_values_of_another_precision_stand_for_their_float16_ones() -> None:
    third = torch.tensor([1 / 3])
    for code in (
        Sparse(torch.tensor([1]), third, (2,)),
        LowRank(third[None], third[None], (1, 1)),
        Half(third),
    ):
        assert torch.equal(made(code)(torch.zeros(code.shape)), code.dense())


def test_tied_parameters_are_computed_from_the_same_values() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    model, x = Tied(), rand(3, 5)
    indices = torch.randint(3, (5, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    codes = {"first.weight": Codebook(indices, torch.tensor([-0.5, 0.1, 0.4]))}
    with torch.no_grad():
        model.first.weight.copy_(codes["first.weight"].dense())
    set_free(model, codes)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    (model(x) ** 2).sum().backward()
    optimizer.step()
    seen = model(x)
    after = settle(model, codes)["first.weight"]
    assert model.second.weight is model.first.weight
    assert torch.equal(model.first.weight.detach(), after.dense())
    assert torch.allclose(model(x), seen, atol=1e-6)
    assert [name for name, _ in model.named_parameters()] == ["first.weight"]


def test_parameters_of_the_model_itself_and_vectors_can_be_free() -> None:
    model = nn.Linear(4, 3)
    codes: dict[str, Code] = {
        "weight": Codebook(torch.ones(3, 4, dtype=torch.uint8), torch.tensor([0.0, 0.5])),
        "bias": Affine(torch.tensor([127, -64, 3], dtype=torch.int8), torch.tensor([0.01])),
    }
    set_free(model, codes)
    (model(rand(2, 4)) ** 2).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.01 * parameter.grad)
    after = settle(model, codes)
    assert after.keys() == codes.keys()
    for name, code in after.items():
        assert torch.equal(model.get_parameter(name).detach(), code.dense())
        assert not torch.equal(code.dense(), codes[name].dense())
    assert tuple(after["bias"].arrays()["scale"].shape) == (1,)


def test_what_was_frozen_is_frozen_again() -> None:
    model = Net()
    model.fc.weight.requires_grad_(False)  # noqa: FBT003 - torch's own signature
    code = Codebook(torch.zeros(6, 4, dtype=torch.uint8), torch.ones(1))
    trained(model, {"conv.weight": codebook(), "fc.weight": code})
    assert model.conv.weight.requires_grad
    assert not model.fc.weight.requires_grad
