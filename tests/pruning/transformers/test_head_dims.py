"""Heads made smaller: the dimensions of queries and keys, in rotary pairs or one by one, and those of values."""

from __future__ import annotations

import copy
import functools
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from easycompress.artifact.onnx_export import export
from easycompress.artifact.pretrained import save_pretrained
from easycompress.core.errors import CannotCompress
from easycompress.core.inputs import Bundle, Inputs, answer, parts
from easycompress.core.progress import Silent
from easycompress.core.task import Split, Splits, Task
from easycompress.metrics import LOSSES, METRICS
from easycompress.pruning.transformers.dims import HeadDims, Kept, find_dims, narrow_dims, silence_dims
from easycompress.pruning.transformers.dims_shares import equal_size
from easycompress.pruning.transformers.layout import find_blocks
from easycompress.pruning.transformers.rotary import dimensions, spaced
from easycompress.pruning.transformers.scores import dims_importance
from easycompress.pruning.transformers.settings import TransformerPruning
from easycompress.pruning.transformers.technique import TransformerPruner
from easycompress.technique import Context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

hf = pytest.importorskip("transformers")

PRUNER = TransformerPruner()
SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
T5: dict[str, Any] = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 4}
VIT: dict[str, Any] = {"image_size": 8, "patch_size": 4, "num_channels": 1}
IMAGES = ("vit", "swin", "torch")


class Encoder(nn.Module):
    def __init__(self, heads: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Linear(16, 32)
        self.layer = nn.TransformerEncoderLayer(32, heads, 24, batch_first=True)
        self.output = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.layer(self.embedding(x.flatten(1).unflatten(1, (4, 16))))[:, 0])


NETS: dict[str, Callable[[], nn.Module]] = {
    "t5": lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5)),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES, num_key_value_heads=2)),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**SIZES, num_key_value_heads=2)),
    "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(**SIZES)),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=20, bos_token_id=1, eos_token_id=2)
    ),
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**SIZES, **VIT)),
    "swin": lambda: hf.SwinForImageClassification(
        hf.SwinConfig(**VIT | {"patch_size": 1}, embed_dim=8, depths=[2, 1], num_heads=[2, 4], window_size=4)
    ),
    "torch": Encoder,
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8)),
    "neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**SIZES)),
}
SAYS_SIZE = ("t5", "llama", "phi3", "vit")
ROTARY = ("llama", "phi3")
every_net = pytest.mark.parametrize("name", [name for name in NETS if name not in ("qwen3", "neox")])


@functools.cache
def original(name: str) -> nn.Module:
    """Return a net whose every layer matters: with the library's initialisation outputs hardly depend on them."""
    torch.manual_seed(0)
    model = NETS[name]().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def inputs(name: str, count: int = 4) -> Inputs:
    generator = torch.Generator().manual_seed(1)
    if name in IMAGES:
        return torch.randn(count, 1, 8, 8, generator=generator)
    ids = torch.randint(3, 50, (count, 6), generator=generator)
    return Bundle((ids, ids), ("input_ids", "decoder_input_ids")) if name == "t5" else Bundle((ids,), ("input_ids",))


def context(model: nn.Module, name: str, **kind: Any) -> Context:
    split = Split(inputs(name), None)
    work = Task(model, Splits(split, split, split, split), inputs(name), METRICS["accuracy"], LOSSES["cross-entropy"])
    facts: Any = None  # apply asks the model itself
    return Context(work, facts, 0, Silent(), **kind)


def outputs(model: nn.Module, name: str) -> Tensor:
    with torch.no_grad():
        return answer(model, inputs(name))


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def apply(model: nn.Module, name: str, strength: float = 0.5, **settings: Any) -> Any:
    action = TransformerPruning.model_validate({"part": "head-dims", "strength": strength} | settings)
    return PRUNER.apply(copy.deepcopy(model), action, context(model, name))


@functools.cache
def pruned(name: str, strength: float = 0.5, **settings: Any) -> Any:
    return apply(original(name), name, strength, **settings)


def some(dims: HeadDims, generator: torch.Generator) -> tuple[Kept, list[int]]:
    """Return about half of the dimensions of each head, other ones in each group, and the rotary pairs they are."""
    groups, count = dims.block.groups, dims.size // 2

    def drawn(width: int, number: int) -> Tensor:
        rows = [torch.randperm(width, generator=generator)[:number].sort().values for _ in range(groups)]
        return torch.stack(rows)

    pairs = torch.tensor([0, dims.size // 2 - 1]) if dims.size > 2 else torch.tensor([0])
    products = drawn(dims.size, count)
    if dims.rotary is not None:
        products = dimensions(pairs, dims.size).expand(groups, -1)
    return Kept(products, drawn(dims.size, products.shape[1])), pairs.tolist()


@every_net
def test_removing_dimensions_that_are_zero_changes_nothing(name: str) -> None:
    model = copy.deepcopy(original(name))
    generator = torch.Generator().manual_seed(2)
    found = find_dims(model)
    attention = [block for block in find_blocks(model) if block.kind == "attention"]
    assert [dims.block for dims in found] == attention
    assert {dims.rotary for dims in found} == ({"model.rotary_emb"} if name in ROTARY else {None})
    chosen = [(dims, *some(dims, generator)) for dims in found]
    for dims, kept, _ in chosen:
        silence_dims(model, dims, kept)
    before, full = outputs(model, name), size(model)
    pairs = {dims.rotary: stay for dims, _, stay in chosen if dims.rotary is not None}
    narrow_dims(model, [(dims, kept) for dims, kept, _ in chosen], pairs)
    after = outputs(model, name)
    assert size(model) < full
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-5 * float(before.abs().max()))
    assert not torch.allclose(outputs(original(name), name), after, rtol=1e-3, atol=1e-3 * float(after.abs().max()))
    assert all(dims.size < old.size for dims, old in zip(find_dims(model), found, strict=True))


@every_net
@pytest.mark.parametrize("uniform", [True, False])
def test_the_record_gives_the_same_answers(name: str, uniform: bool) -> None:  # noqa: FBT001 - a parameter of the test
    results = [pruned(name, strength, uniform=uniform) for strength in (0.0, 0.5, 1.0)]
    assert torch.equal(outputs(results[0].model, name), outputs(original(name), name))
    sizes = [size(result.model) for result in results]
    assert sizes[0] == size(original(name)) > sizes[1] > sizes[2]
    assert {dims.size for dims in find_dims(results[2].model)} == ({2} if name in ROTARY else {1})
    for result in results[1:]:
        record = json.loads(json.dumps(result.record))
        fresh = PRUNER.replay(NETS[name]().eval(), record, inputs(name))
        fresh.load_state_dict(result.model.state_dict())
        assert torch.equal(outputs(fresh, name), outputs(result.model, name))


@pytest.mark.parametrize("name", SAYS_SIZE)
def test_the_configuration_says_the_size_of_heads(name: str, tmp_path: Path) -> None:
    result = pruned(name)
    assert {getattr(result.model.config, "d_kv" if name == "t5" else "head_dim")} == {4}
    assert {dims.size for dims in find_dims(result.model)} == {4}
    saved = save_pretrained(result.model, tmp_path / "model", inputs(name))
    assert saved, saved.reason
    loaded = type(result.model).from_pretrained(tmp_path / "model").eval()
    near = outputs(result.model, name)
    assert torch.allclose(outputs(loaded, name), near, rtol=1e-5, atol=1e-5 * float(near.abs().max()))
    assert not torch.allclose(near, outputs(original(name), name), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["bert", "gpt2", "swin"])
def test_what_no_configuration_says_keeps_scale_and_configuration(name: str, tmp_path: Path) -> None:
    result = pruned(name)
    before = {dims.block.name: dims.size for dims in find_dims(original(name))}
    for dims in find_dims(result.model):
        assert dims.size == before[dims.block.name] // 2
        assert result.model.get_submodule(dims.block.name).scaling == pytest.approx(before[dims.block.name] ** -0.5)
    assert result.record["configuration"] == {}
    saved = save_pretrained(result.model, tmp_path / "model", inputs(name))
    assert not saved
    assert "\n" not in saved.reason


@pytest.mark.parametrize("first", [0, 1, 2])
def test_rotary_pairs_that_matter_stay_and_the_configuration_says_which(first: int, tmp_path: Path) -> None:
    model = copy.deepcopy(original("llama"))
    gone = [pair for pair in range(4) if pair not in (first, first + 1)]
    with torch.no_grad():
        for dims in find_dims(model):
            for cut in dims.cuts("query", "key"):
                rows = model.get_parameter(cut.tensor).unflatten(0, (-1, 2, 4))
                rows[:, :, gone] *= 1e-3
    result = apply(model, "llama", steps=3)
    assert result.record["head_dims"]["pairs"] == {"model.rotary_emb": [first, first + 1]}
    inside = result.model.model.rotary_emb.inv_freq
    assert torch.equal(inside, model.model.rotary_emb.inv_freq[[first, first + 1]])
    assert result.model.config.rope_parameters["rope_type"] == ("linear" if first else "default")
    assert save_pretrained(result.model, tmp_path / "model", inputs("llama"))
    loaded = type(result.model).from_pretrained(tmp_path / "model").eval()
    assert torch.allclose(loaded.model.rotary_emb.inv_freq, inside, rtol=1e-5, atol=0)
    assert torch.allclose(outputs(loaded, "llama"), outputs(result.model, "llama"), rtol=1e-4, atol=1e-4)


def test_pairs_that_no_configuration_says_stay_where_none_is_asked() -> None:
    model = copy.deepcopy(original("llama"))
    with torch.no_grad():
        for dims in find_dims(model):
            for cut in dims.cuts("query", "key"):
                model.get_parameter(cut.tensor).unflatten(0, (-1, 2, 4))[:, :, 2] *= 1e-3
    free, said = (apply(model, "llama", 0.25, uniform=uniform) for uniform in (False, True))
    assert free.record["head_dims"]["pairs"] == {"model.rotary_emb": [0, 1, 3]}
    assert free.record["configuration"] == {}
    (pairs,) = said.record["head_dims"]["pairs"].values()
    assert pairs in ([0, 1, 2], [1, 2, 3])
    assert said.record["configuration"]["head_dim"] == 6


def test_frequencies_that_are_computed_anew_are_left_alone() -> None:
    longer = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES, rope_parameters=longer)).eval()
    assert find_dims(model) == []


def test_evenly_spaced_pairs() -> None:
    assert list(spaced(4, 2)) == [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3), (0, 3)]
    assert list(spaced(4, 4)) == [(0, 1, 2, 3)]
    assert list(spaced(3, 1)) == [(0,), (1,), (2,)]


@pytest.mark.parametrize("kind", ["taylor", "norm"])
@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_dimensions_that_do_nothing_go_first(name: str, kind: Any) -> None:
    model = copy.deepcopy(original(name))
    found = find_dims(model)
    generator = torch.Generator().manual_seed(3)
    wanted = [(dims, some(dims, generator)[0]) for dims in found]
    for dims, kept in wanted:
        silence_dims(model, dims, kept)
    scores = dims_importance(model, found, kind, context(model, name).task, 0)
    for dims, kept in wanted:
        for table, stay in zip(scores[dims.block.name], (kept.products, kept.values), strict=True):
            assert table.shape == (4, 8)
            assert torch.equal(table.topk(4, dim=1).indices.sort(1).values, stay)
    result = apply(model, name, importance=kind)
    near = outputs(model, name)
    assert torch.allclose(outputs(result.model, name), near, rtol=1e-4, atol=1e-5 * float(near.abs().max()))


def test_steps_end_where_one_pruning_does() -> None:
    seen: list[int] = []

    def recover(model: Any, _: int) -> int:
        seen.append(model.model.layers[0].self_attn.head_dim)
        return 1

    action = TransformerPruning(part="head-dims", strength=0.75, steps=3)
    model = original("llama")
    result = PRUNER.apply(copy.deepcopy(model), action, context(model, "llama", recover=recover))
    assert seen == [6, 4]
    assert (result.epochs, result.model.config.head_dim) == (2, 2)
    assert len(result.model.model.rotary_emb.inv_freq) == 1


@pytest.mark.parametrize(("strength", "left"), [(0.0, 64), (0.1, 64), (0.4, 48), (0.75, 16), (1.0, 16)])
def test_sizes_are_multiples(strength: float, left: int) -> None:
    model = hf.BertModel(hf.BertConfig(**SIZES | {"hidden_size": 128, "num_attention_heads": 2}))
    dims = find_dims(model)[0]
    assert equal_size(dims, strength, 16) == left
    assert equal_size(HeadDims(dims.block, "rotary"), strength, 1) % 2 == 0


@pytest.mark.parametrize("name", ["qwen3", "neox"])
def test_heads_that_are_normalised_or_mixed_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(CannotCompress, match="no attention whose heads can be made smaller") as refusal:
        pruned(name)
    assert "\n" not in str(refusal.value)
    assert "prune part both instead" in str(refusal.value)


def test_a_single_head_becomes_smaller_instead_of_going() -> None:
    torch.manual_seed(0)
    model = Encoder(heads=1).eval()
    result = apply(model, "torch", part="both")
    assert [(block.units, block.outputs[0].width) for block in find_blocks(result.model)] == [(1, 16), (12, 1)]
    fresh = PRUNER.replay(Encoder(heads=1).eval(), result.record, inputs("torch"))
    fresh.load_state_dict(result.model.state_dict())
    assert torch.equal(outputs(fresh, "torch"), outputs(result.model, "torch"))


def test_a_single_head_whose_dimensions_are_read_elsewhere_stays() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_heads, self.head_dim, self.scale = 1, 16, 0.25
            self.q_proj, self.k_proj, self.v_proj = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
            self.out_proj = nn.Linear(16, 16)
            self.mlp = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16))

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1).unflatten(1, (4, 16))
            q = self.q_proj(x)
            share = (q @ self.k_proj(x).transpose(1, 2) * self.scale).softmax(-1)
            return self.mlp(self.out_proj(share @ self.v_proj(x)) * q[..., -1:].sigmoid()).mean(1)

    torch.manual_seed(0)
    model = Gated().eval()
    result = apply(model, "torch", part="both")
    assert [(block.units, block.outputs[0].width) for block in find_blocks(result.model)] == [(1, 16), (12, 1)]
    with pytest.raises(CannotCompress, match="in more places than are known"):
        apply(model, "torch")


def test_a_single_head_stays_where_the_configuration_cannot_say_it() -> None:
    bert = hf.BertForSequenceClassification(hf.BertConfig(**SIZES | {"num_attention_heads": 1})).eval()
    result = apply(bert, "bert", part="both")
    assert {block.outputs[0].width for block in find_blocks(result.model) if block.kind == "attention"} == {32}
    t5 = hf.T5ForConditionalGeneration(hf.T5Config(**T5 | {"num_heads": 1})).eval()
    assert apply(t5, "t5", part="attention").record["configuration"] == {"d_kv": 4}


def test_the_file_runs_and_agrees() -> None:
    torch.manual_seed(0)
    less = hf.LlamaConfig(**SIZES | {"num_hidden_layers": 1}, num_key_value_heads=2)  # an export takes seconds
    model = apply(hf.LlamaForCausalLM(less).eval(), "llama", uniform=False).model
    session = onnxruntime.InferenceSession(export(model, inputs("llama", 2)).SerializeToString())
    given = dict(zip([value.name for value in session.get_inputs()], parts(inputs("llama")), strict=True))
    got = session.run(None, {key: value.numpy() for key, value in given.items()})[0]
    np.testing.assert_allclose(got, outputs(model, "llama").numpy(), rtol=1e-4, atol=1e-4)
