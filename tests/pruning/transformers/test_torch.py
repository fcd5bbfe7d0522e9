"""Transformers of torch and torchvision: their attention computes the head size from the model's width."""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from nets import Mlp, make
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerBlockV2,
)

from easycompress.artifact.onnx_export import export
from easycompress.artifact.pretrained import save_pretrained
from easycompress.core.errors import CannotCompress
from easycompress.core.profile import LayerProfile, ModelProfile
from easycompress.core.progress import Silent
from easycompress.core.task import Split, Splits, Task
from easycompress.metrics import LOSSES, METRICS
from easycompress.pruning.transformers.layout import find_blocks
from easycompress.pruning.transformers.narrow import NarrowAttention
from easycompress.pruning.transformers.scores import choose, importance
from easycompress.pruning.transformers.settings import TransformerPruning
from easycompress.pruning.transformers.surgery import keep, silence
from easycompress.pruning.transformers.technique import TransformerPruner
from easycompress.technique import Context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PRUNER = TransformerPruner()
CLASSES = 5


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 40, batch_first=True)
        self.embedding = nn.Linear(12, 32)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        hidden = self.encoder(self.embedding(x.reshape(len(x), -1, 12)), src_key_padding_mask=padding)
        return self.head(hidden[:, 0])


def swin(**kind: Any) -> nn.Module:
    return SwinTransformer([1, 1], 16, [2, 1], [2, 4], [4, 4], num_classes=CLASSES, **kind)


NETS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: VisionTransformer(8, 4, 2, 4, 32, 40, num_classes=CLASSES),
    "swin": swin,
    "swin-v2": lambda: swin(block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2),
    "encoder": Encoder,
}
every_net = pytest.mark.parametrize("name", NETS)


def net(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = NETS[name]().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def outputs(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(images())


def task(model: nn.Module, count: int = 3) -> Task:
    split = Split(images(count), torch.arange(count) % CLASSES)
    return Task(model, Splits(split, split, split, split), images(), METRICS["accuracy"], LOSSES["cross-entropy"])


def apply(name: str, strength: float | None, **settings: Any) -> Any:
    facts: Any = None  # apply asks the model itself
    model = net(name)
    action = TransformerPruning(strength=strength, **settings)
    return PRUNER.apply(copy.deepcopy(model), action, Context(task(model), facts, 0, Silent()))


def close(left: Tensor, right: Tensor) -> bool:
    return torch.allclose(left, right, rtol=1e-4, atol=1e-5 * float(right.abs().max()))


@every_net
def test_removing_what_is_silent_changes_nothing(name: str) -> None:
    model = net(name)
    blocks = find_blocks(model)
    assert {block.kind for block in blocks} == {"attention", "feed-forward"}
    for block in blocks:
        silence(model, block, [0])
    before = outputs(model)
    for block in blocks:
        keep(model, block, range(1, block.units))
    assert close(outputs(model), before)
    assert not close(outputs(net(name)), before)
    for block, narrow in zip(blocks, find_blocks(model), strict=True):  # what is narrow can be narrowed again
        assert (narrow.name, narrow.units) == (block.name, block.units - 1)


@every_net
@pytest.mark.parametrize("uniform", [True, False])
def test_strengths(name: str, uniform: bool) -> None:  # noqa: FBT001 - a parameter of the test
    results = [apply(name, strength, uniform=uniform) for strength in (0.0, 0.5, 1.0)]
    assert torch.equal(outputs(results[0].model), outputs(net(name)))
    sizes = [sum(p.numel() for p in result.model.parameters()) for result in results]
    assert sizes[0] > sizes[1] > sizes[2]
    assert all(block.units == 1 for block in find_blocks(results[2].model))
    for result in results:
        fresh = PRUNER.replay(NETS[name]().eval(), result.record, images())
        fresh.load_state_dict(result.model.state_dict())
        assert torch.equal(outputs(fresh), outputs(result.model))


def test_the_file_runs_and_agrees() -> None:
    """Both modules that stand for a library's own, in one small file: an export takes seconds."""

    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.windows = SwinTransformerBlock(12, 3, [4, 4], [2, 2])
            self.encoder = nn.TransformerEncoderLayer(12, 3, 16, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            maps = self.windows(x.flatten(1).unflatten(1, (4, 4, 12)))
            return self.encoder(maps.flatten(1, 2))

    model = Narrow().eval()
    for block in find_blocks(model):
        keep(model, block, range(1, block.units))
    session = onnxruntime.InferenceSession(export(model, images(2)).SerializeToString())
    found = session.run(None, {session.get_inputs()[0].name: images().numpy()})[0]
    np.testing.assert_allclose(found, outputs(model).numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strength", [0.3, 0.6])
def test_widths_are_multiples(strength: float) -> None:
    widths = {b.units for b in find_blocks(apply("vit", strength, round_to=8).model) if b.kind == "feed-forward"}
    assert widths == {0.3: {32}, 0.6: {16}}[strength]


def test_a_larger_strength_never_keeps_more() -> None:
    counts = [[b.units for b in find_blocks(apply("swin", strength / 8, uniform=False).model)] for strength in range(9)]
    for less, more in itertools.pairwise(counts):
        assert all(left >= right for left, right in zip(less, more, strict=True))


def test_bytes_need_no_gradients_where_shares_are_equal() -> None:
    assert TransformerPruning(strength=0.5).untrained().importance == "norm"
    assert TransformerPruning(strength=0.5, uniform=False).untrained().importance == "taylor"
    shapes = [[p.shape for p in apply("vit", 0.5, importance=kind).model.parameters()] for kind in ("norm", "taylor")]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("kind", ["norm", "taylor"])
def test_what_does_nothing_matters_least(kind: Any) -> None:
    model = net("vit")
    blocks = find_blocks(model)
    for block in blocks:
        silence(model, block, [2])
        if kind == "norm":
            for cut in block.inputs:
                model.get_parameter(cut.tensor).data.mul_(1e-3)
    for block in blocks:
        scores = importance(model, blocks, kind, task(model, 16), 0)[block.name]
        assert scores.shape == (block.units,)
        assert scores.argmin() == 2
        assert 2 not in choose(block, scores, block.units - 1, whole=True)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_scores_need_no_labels() -> None:
    model = net("vit")
    blocks = find_blocks(model)
    silence(model, blocks[0], [1])
    split = Split(images(8), None)
    work = Task(model, Splits(split, split, split, split), images(), METRICS["accuracy"], LOSSES["cross-entropy"])
    first, again = (importance(model, blocks, "taylor", work, seed=3)[blocks[0].name] for _ in range(2))
    assert torch.equal(first, again)
    assert first[1] == 0 < first[0]


def test_narrow_attention_is_torchs_attention() -> None:
    torch.manual_seed(0)
    for batch_first, bias in ((True, True), (False, False)):
        full = nn.MultiheadAttention(16, 4, batch_first=batch_first, bias=bias).eval()
        narrow = NarrowAttention(full)
        query, memory = torch.randn(3, 3, 16), torch.randn(3, 3, 16)
        padding = torch.tensor([[False, False, True]]).expand(3, 3)
        causal = torch.triu(torch.ones(3, 3, dtype=torch.bool), 1)
        per_head = torch.randn(12, 3, 3)
        options: list[dict[str, Any]] = [{}, {"key_padding_mask": padding}, {"attn_mask": causal}]
        options += [{"attn_mask": per_head}, {"average_attn_weights": False}]
        for masks in options:
            expected, weights = full(query, memory, memory, **masks)
            found, shares = narrow(query, memory, memory, **masks)
            assert torch.allclose(found, expected, atol=1e-6)
            assert shares is not None
            assert torch.allclose(shares, weights, atol=1e-6)
        assert narrow(query, memory, memory, need_weights=False)[1] is None


def test_padding_still_works_in_torchs_encoder() -> None:
    model = apply("encoder", 0.5).model
    padding = torch.zeros(3, 16, dtype=torch.bool)
    padding[:, 10:] = True
    short = images().reshape(3, -1)[:, :120]
    with torch.no_grad():
        assert torch.allclose(model(images(), padding), model(short), atol=1e-4)


def facts(**changes: Any) -> ModelProfile:
    layer = LayerProfile(name="conv", type="Conv2d", family="convolutional", params=9, macs=9)
    plain: dict[str, Any] = {"architecture": "cnn", "layers": (layer,), "params": 9, "macs": 9}
    plain |= {"has_batch_norm": False, "input_shape": (1, 8, 8), "outputs": 3}
    return ModelProfile(**(plain | changes))


def test_a_model_that_is_torchs_attention_itself_is_refused_in_one_line() -> None:
    model = nn.MultiheadAttention(16, 4)
    (block,) = find_blocks(model)
    with pytest.raises(CannotCompress, match=r"nothing but MultiheadAttention.*give a module that holds it"):
        keep(model, block, [0, 1])


def test_models_without_attention_are_refused() -> None:
    refusal = PRUNER.refuses(facts(), TransformerPruning())
    assert refusal == "transformer pruning (both): the model has no attention; it is made of Conv2d"
    assert PRUNER.refuses(facts(architecture="transformer"), TransformerPruning()) is None


def test_nothing_that_is_understood_is_an_error() -> None:
    model = make(Mlp)
    none: Any = None
    with pytest.raises(
        CannotCompress, match="no attention or feed-forward block that it understands; the model has Mlp"
    ):
        PRUNER.apply(model, TransformerPruning(strength=0.5), Context(task(model), none, 0, Silent()))


def test_a_width_that_is_read_elsewhere_is_an_error() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(12, 16), nn.Linear(16, 12)
            self.scale = nn.Parameter(torch.ones(16))

        def forward(self, x: Tensor) -> Tensor:
            return self.fc2(self.fc1(x.flatten(1)[:, :12]) * self.scale)

    none: Any = None
    model = Reader().eval()
    with pytest.raises(CannotCompress, match=r"uses the widths of .* in more places than are known"):
        PRUNER.apply(model, TransformerPruning(strength=0.5), Context(task(model), none, 0, Silent()))


def test_other_models_have_no_folder_of_their_own(tmp_path: Path) -> None:
    saved = save_pretrained(net("vit"), tmp_path / "model", images())
    assert "has no save_pretrained" in saved.reason
    assert not list(tmp_path.iterdir())
