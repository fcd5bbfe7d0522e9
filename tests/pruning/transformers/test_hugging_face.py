"""Models of the transformers library, from tiny configurations: their forwards read what pruning has to change."""

from __future__ import annotations

import copy
import functools
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from easycompress.artifact.pretrained import save_pretrained
from easycompress.core.errors import CannotCompress
from easycompress.core.inputs import Bundle, Inputs, answer
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
    from pathlib import Path

    from easycompress.pruning.transformers.blocks import Block

hf = pytest.importorskip("transformers")

PRUNER = TransformerPruner()
SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
}
T5: dict[str, Any] = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 4}
VIT = {"image_size": 8, "patch_size": 4, "num_channels": 1}
SWIN = {**VIT, "patch_size": 1, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 4], "window_size": 4}

NETS: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(**SIZES)),
    "roberta": lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**SIZES)),
    "distilbert": lambda: hf.DistilBertForSequenceClassification(
        hf.DistilBertConfig(vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=40, max_position_embeddings=20)
    ),
    "albert": lambda: hf.AlbertForSequenceClassification(hf.AlbertConfig(**SIZES, embedding_size=16)),
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**SIZES, **VIT)),
    "swin": lambda: hf.SwinForImageClassification(hf.SwinConfig(**SWIN)),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=20, bos_token_id=1, eos_token_id=2)
    ),
    "t5": lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5)),
    "t5-gated": lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5, feed_forward_proj="gated-gelu")),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES, num_key_value_heads=2)),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**SIZES, num_key_value_heads=2, pad_token_id=0)),
    "neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**SIZES)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8)),
}
SAYS_HEADS = {"phi3", "vit", "t5", "t5-gated", "llama", "qwen3"}
every_net = pytest.mark.parametrize("name", NETS)


@functools.cache
def original(name: str) -> nn.Module:
    """Return a net whose every layer matters: with the library's initialisation outputs hardly depend on them."""
    torch.manual_seed(0)
    model = NETS[name]().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def inputs(name: str) -> Inputs:
    generator = torch.Generator().manual_seed(1)
    if name in ("vit", "swin"):
        return torch.randn(4, 1, 8, 8, generator=generator)
    ids = torch.randint(3, 50, (4, 6), generator=generator)
    return Bundle((ids, ids), ("input_ids", "decoder_input_ids")) if "t5" in name else Bundle((ids,), ("input_ids",))


def context(name: str, *, recover: Callable[[nn.Module, int], int] | None = None) -> Context:
    split = Split(inputs(name), None)
    work = Task(
        original(name), Splits(split, split, split, split), inputs(name), METRICS["accuracy"], LOSSES["cross-entropy"]
    )
    facts: Any = None  # apply asks the model itself
    return Context(work, facts, 0, Silent(), recover=recover)


def outputs(model: nn.Module, name: str) -> Tensor:
    with torch.no_grad():
        return answer(model, inputs(name))


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@functools.cache
def pruned(name: str, strength: float, **settings: Any) -> Any:
    action = TransformerPruning(strength=strength, **settings)
    return PRUNER.apply(copy.deepcopy(original(name)), action, context(name))


@every_net
def test_heads_and_neurons_are_found(name: str) -> None:
    kinds = [block.kind for block in find_blocks(original(name))]
    layers = {"albert": 1, "t5": 6, "t5-gated": 6, "swin": 3}.get(name, 2)
    assert kinds.count("attention") == layers
    assert kinds.count("feed-forward") == (4 if "t5" in name else layers)


@every_net
def test_removing_what_is_silent_changes_nothing(name: str) -> None:
    model = copy.deepcopy(original(name))
    blocks = find_blocks(model)
    chosen: list[tuple[Block, list[int]]] = []
    for block in blocks:
        per = block.units // block.groups
        group = block.groups // 2  # one from the middle, with every query head that uses it
        gone = list(range(group * per, (group + 1) * per))
        silence(model, block, gone)
        chosen.append((block, [unit for unit in range(block.units) if unit not in gone]))
    before, full = outputs(model, name), size(model)
    for block, kept in chosen:
        keep(model, block, kept)
    after = outputs(model, name)
    assert size(model) < full
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-5 * float(before.abs().max()))
    assert not torch.allclose(outputs(original(name), name), after, rtol=1e-3, atol=1e-3 * float(after.abs().max()))


@every_net
@pytest.mark.parametrize("uniform", [True, False])
def test_strengths(name: str, uniform: bool) -> None:  # noqa: FBT001 - a parameter of the test
    results = [pruned(name, strength, uniform=uniform) for strength in (0.0, 0.5, 1.0)]
    assert torch.equal(outputs(results[0].model, name), outputs(original(name), name))
    sizes = [size(result.model) for result in results]
    assert sizes[0] == size(original(name)) > sizes[1] > sizes[2]
    for result in results:
        record = json.loads(json.dumps(result.record))
        fresh = PRUNER.replay(NETS[name]().eval(), record, inputs(name))
        fresh.load_state_dict(result.model.state_dict())
        assert torch.equal(outputs(fresh, name), outputs(result.model, name))


@every_net
def test_a_uniform_result_is_what_its_configuration_says(name: str, tmp_path: Path) -> None:
    result = pruned(name, 0.5, uniform=True)
    saved = save_pretrained(result.model, tmp_path / "model", inputs(name))
    assert saved, saved.reason
    loaded = type(result.model).from_pretrained(tmp_path / "model").eval()
    assert torch.equal(outputs(loaded, name), outputs(result.model, name))
    attention = [block for block in find_blocks(loaded) if block.kind == "attention"]
    assert {block.units for block in attention} == ({2} if name in SAYS_HEADS else {2, 4} if name == "swin" else {4})


def test_widths_that_are_one_ratio_are_said_as_that() -> None:
    result = pruned("swin", 0.4, uniform=True, part="feed-forward")
    assert result.record["configuration"] == {"mlp_ratio": 2.5}
    assert [block.units for block in find_blocks(result.model) if block.kind == "feed-forward"] == [20, 20, 40]


def test_a_result_that_no_configuration_says_is_not_written(tmp_path: Path) -> None:
    result = pruned("bert", 0.5, uniform=False)
    saved = save_pretrained(result.model, tmp_path / "model", inputs("bert"))
    assert not saved
    assert saved.reason
    assert "\n" not in saved.reason
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    saved = save_pretrained(original("bert"), tmp_path, inputs("bert"))
    assert "isn't empty" in saved.reason
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_heads_that_no_configuration_says_are_refused() -> None:
    with pytest.raises(CannotCompress, match="can't say fewer heads; prune the feed-forward part, or set uniform"):
        pruned("swin", 0.5, part="attention")
    result = pruned("bert", 0.5, part="attention", uniform=False)
    assert {block.units for block in find_blocks(result.model) if block.kind == "feed-forward"} == {40}
    assert sum(block.units for block in find_blocks(result.model) if block.kind == "attention") == 4


def test_a_model_inside_another_is_found_and_saved(tmp_path: Path) -> None:
    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = copy.deepcopy(original("bert"))

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.inner(input_ids=input_ids).logits

    model = Logits().eval()
    result = PRUNER.apply(model, TransformerPruning(strength=0.5), context("bert"))
    assert model.inner.config.intermediate_size == 20
    assert save_pretrained(result.model, tmp_path / "model", inputs("bert"))
    assert original("bert").config.intermediate_size == 40


def test_query_heads_go_evenly_from_each_group() -> None:
    result = pruned("llama", 0.5, grouped="query", part="attention")
    assert [(b.units, b.groups) for b in find_blocks(result.model) if b.kind == "attention"] == [(2, 2), (2, 2)]
    assert result.record["configuration"] == {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}


def test_head_counts_that_a_configuration_refuses_are_rounded_up() -> None:
    """Llama's number of heads has to divide its width, 32: of four groups of one, three can't stay."""
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES)).eval()
    result = PRUNER.apply(model, TransformerPruning(strength=0.25, part="attention"), context("llama"))
    assert [b.units for b in find_blocks(result.model)][:2] == [4, 4]


def test_t5_layers_that_share_a_position_bias_keep_the_same_heads() -> None:
    ties = [block.tie for block in find_blocks(original("t5")) if block.kind == "attention"]
    assert ties[:2] == ["encoder.block.*.SelfAttention"] * 2
    assert ties.count("decoder.block.*.SelfAttention") == 2


def test_pruning_in_steps_ends_where_pruning_at_once_does() -> None:
    asked: list[int] = []

    def recover(_: nn.Module, index: int) -> int:
        asked.append(index)
        return 2

    action = TransformerPruning(strength=0.5, steps=3)
    result = PRUNER.apply(copy.deepcopy(original("vit")), action, context("vit", recover=recover))
    assert asked == [1, 2]
    assert result.epochs == 4
    assert result.record == pruned("vit", 0.5).record
