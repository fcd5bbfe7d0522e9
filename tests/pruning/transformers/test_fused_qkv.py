"""Attention with one matrix for queries, keys and values, reshaped to (B, N, 3, heads, head size), as in timm."""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress.artifact.onnx_export import export
from easycompress.core.errors import CannotCompress
from easycompress.core.progress import Silent
from easycompress.core.task import Split, Splits, Task
from easycompress.metrics import LOSSES, METRICS
from easycompress.pruning.transformers.layout import find_blocks
from easycompress.pruning.transformers.settings import TransformerPruning
from easycompress.pruning.transformers.surgery import keep, silence
from easycompress.pruning.transformers.technique import TransformerPruner
from easycompress.technique import Context

if TYPE_CHECKING:
    from collections.abc import Callable

PRUNER = TransformerPruner()
WIDTH, HEADS = 24, 4


class Early(nn.Module):
    """The head size is computed in forward, from the width of what comes in."""

    def __init__(self, bias: bool = True) -> None:  # noqa: FBT001, FBT002 - a parameter of the net
        super().__init__()
        self.num_heads = HEADS
        self.scale = (WIDTH // HEADS) ** -0.5
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=bias)
        self.attn_drop = nn.Dropout(0.1)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.proj_drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        share = self.attn_drop((q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1))
        return self.proj_drop(self.proj((share @ v).transpose(1, 2).reshape(b, n, c)))


class Later(Early):
    """The head size is kept, queries and keys may be normalised, and torch's own operator takes the usual scale."""

    def __init__(self, norm: type[nn.Module] = nn.Identity, wide: type[nn.Module] = nn.Identity) -> None:
        super().__init__()
        self.head_dim = WIDTH // HEADS
        self.q_norm, self.k_norm, self.norm = norm(self.head_dim), norm(self.head_dim), wide(WIDTH)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        x = functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.proj_drop(self.proj(self.norm(x.transpose(1, 2).reshape(b, n, c))))


class Latest(Later):
    """The width behind the heads is kept too, and need not be the width before them."""

    def __init__(self) -> None:
        super().__init__()
        self.attn_dim = WIDTH

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - the library's interface
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        x = functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, is_causal=is_causal)
        return self.proj_drop(self.proj(x.transpose(1, 2).reshape(b, n, self.attn_dim)))


class Otherwise(Early):
    """The same parts, put together in another order: heads first, then queries, keys and values."""

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, self.num_heads, 3, c // self.num_heads).permute(3, 0, 2, 1, 4)
        q, k, v = qkv.unbind(0)
        share = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self.proj((share @ v).transpose(1, 2).reshape(b, n, c))


class Net(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attn = attention
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x + self.attn(x)).mean(1))


MADE: dict[str, Callable[[], nn.Module]] = {
    "early": Early,
    "without bias": lambda: Early(bias=False),
    "later": Later,
    "normalised": lambda: Later(nn.LayerNorm),
    "latest": Latest,
}
every_kind = pytest.mark.parametrize("kind", MADE)


def net(kind: str) -> nn.Module:
    torch.manual_seed(0)
    model = Net(MADE[kind]()).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def tokens(count: int = 3) -> Tensor:
    return torch.randn(count, 7, WIDTH, generator=torch.Generator().manual_seed(1))


def outputs(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(tokens())


def apply(model: nn.Module, strength: float = 0.5, **settings: Any) -> Any:
    split = Split(tokens(), torch.arange(3))
    work = Task(model, Splits(split, split, split, split), tokens(), METRICS["accuracy"], LOSSES["cross-entropy"])
    facts: Any = None  # apply asks the model itself
    action = TransformerPruning.model_validate({"part": "attention", "strength": strength} | settings)
    return PRUNER.apply(copy.deepcopy(model), action, Context(work, facts, 0, Silent()))


@every_kind
def test_each_head_can_go(kind: str) -> None:
    for gone in itertools.chain(range(HEADS), [[0, 2]]):
        model = net(kind)
        (block,) = find_blocks(model)
        out = [gone] if isinstance(gone, int) else gone
        silence(model, block, out)
        before = outputs(model)
        keep(model, block, [unit for unit in range(HEADS) if unit not in out])
        assert model.attn.qkv.weight.shape == (3 * 6 * (HEADS - len(out)), WIDTH)
        assert torch.allclose(outputs(model), before, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(outputs(net(kind)), before, rtol=1e-2, atol=1e-2)
        assert find_blocks(model)[0].units == HEADS - len(out)


@every_kind
@pytest.mark.parametrize("uniform", [True, False])
def test_the_record_gives_the_same_answers(kind: str, uniform: bool) -> None:  # noqa: FBT001 - a parameter of the test
    result = apply(net(kind), uniform=uniform)
    assert result.model.attn.num_heads == 2
    fresh = PRUNER.replay(Net(MADE[kind]()).eval(), result.record, tokens())
    fresh.load_state_dict(result.model.state_dict())
    assert torch.equal(outputs(fresh), outputs(result.model))


@pytest.mark.parametrize("kind", ["early", "later", "latest"])
def test_heads_become_smaller_at_the_scale_they_had(kind: str) -> None:
    result = apply(net(kind), part="head-dims")
    assert (result.model.attn.num_heads, result.model.attn.head_dim) == (HEADS, 3)
    assert result.model.attn.scale == pytest.approx(6**-0.5)
    fresh = PRUNER.replay(Net(MADE[kind]()).eval(), result.record, tokens())
    fresh.load_state_dict(result.model.state_dict())
    assert torch.equal(outputs(fresh), outputs(result.model))


def test_masks_and_dropout_work_as_before() -> None:
    narrow = apply(net("latest"), strength=0.25).model.attn
    mask = torch.ones(7, 7, dtype=torch.bool).tril()
    with torch.no_grad():
        assert torch.allclose(narrow(tokens(), mask), narrow(tokens(), is_causal=True), atol=1e-6)
        assert not torch.allclose(narrow(tokens(), mask), narrow(tokens()), atol=1e-3)
    narrow.train()
    assert not torch.equal(narrow(tokens()), narrow(tokens()))


def test_a_norm_over_all_heads_keeps_them() -> None:
    model = Net(Later(wide=nn.LayerNorm)).eval()
    assert find_blocks(model) == []


def test_the_same_parts_in_another_order_are_refused_in_one_line() -> None:
    torch.manual_seed(0)
    with pytest.raises(CannotCompress, match=r"uses the widths of attn in more places than are known") as refusal:
        apply(Net(Otherwise()).eval())
    assert "\n" not in str(refusal.value)


def test_the_file_runs_and_agrees() -> None:
    model = apply(net("early")).model
    session = onnxruntime.InferenceSession(export(model, tokens(2)).SerializeToString())
    found = session.run(None, {session.get_inputs()[0].name: tokens().numpy()})[0]
    np.testing.assert_allclose(found, outputs(model).numpy(), rtol=1e-4, atol=1e-5)
