"""Heads together with hidden width, where the configuration computes a head's size from both."""

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
from torch.nn import functional

from easycompress.artifact.onnx_export import export
from easycompress.artifact.pretrained import save_pretrained
from easycompress.core.errors import CannotCompress
from easycompress.core.inputs import Bundle, Inputs, answer
from easycompress.core.progress import Silent
from easycompress.core.task import Split, Splits, Task
from easycompress.metrics import LOSSES, METRICS
from easycompress.pruning.transformers.layout import find_blocks
from easycompress.pruning.transformers.scores import channel_importance
from easycompress.pruning.transformers.settings import TransformerPruning
from easycompress.pruning.transformers.stream import Stream, best_channels, keep_channels, stream_of
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
    "intermediate_size": 40,
    "max_position_embeddings": 20,
}
DISTIL = {"vocab_size": 50, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 40, "max_position_embeddings": 20}
GPT2 = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 20}
NETS: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(**SIZES)),
    "bert-words": lambda: hf.BertForMaskedLM(hf.BertConfig(**SIZES)),
    "roberta": lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**SIZES)),
    "distilbert": lambda: hf.DistilBertForSequenceClassification(hf.DistilBertConfig(**DISTIL)),
    "albert": lambda: hf.AlbertForSequenceClassification(hf.AlbertConfig(**SIZES, embedding_size=16)),
    "neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**SIZES)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**GPT2, bos_token_id=1, eos_token_id=2)),
}
every_net = pytest.mark.parametrize("name", NETS)
HALF = TransformerPruning(strength=0.5, part="attention")


@functools.cache
def original(name: str) -> nn.Module:
    """Return a net whose every layer matters: with the library's initialisation outputs hardly depend on them."""
    torch.manual_seed(0)
    model = NETS[name]().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def inputs() -> Inputs:
    ids = torch.randint(3, 50, (4, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return Bundle((ids, mask), ("input_ids", "attention_mask"))


def context(model: nn.Module, **kind: Any) -> Context:
    split = Split(inputs(), None)
    work = Task(model, Splits(split, split, split, split), inputs(), METRICS["accuracy"], LOSSES["cross-entropy"])
    facts: Any = None  # apply asks the model itself
    return Context(work, facts, 0, Silent(), **kind)


def apply(model: nn.Module, action: TransformerPruning, **kind: Any) -> Any:
    return PRUNER.apply(copy.deepcopy(model), action, context(model, **kind))


def outputs(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return answer(model, inputs())


@functools.cache
def halved(name: str) -> Any:
    return apply(original(name), HALF)


def stream(model: nn.Module, name: str = "bert") -> Stream:
    config = original(name).config
    settings = {"hidden_size": 16, "num_attention_heads": 2}
    found = stream_of(model, find_blocks(model), settings, config.hidden_size, 16)
    assert found is not None
    return found


@every_net
def test_the_configuration_says_what_is_left(name: str, tmp_path: Path) -> None:
    result = halved(name)
    config = result.model.config
    assert (config.hidden_size, config.num_attention_heads) == (16, 2)
    assert original(name).config.hidden_size == 32
    assert {b.units for b in find_blocks(result.model) if b.kind == "attention"} == {2}
    assert {b.units for b in find_blocks(result.model) if b.kind == "feed-forward"} == {128 if name == "gpt2" else 40}
    saved = save_pretrained(result.model, tmp_path / "model", inputs())
    assert saved, saved.reason
    loaded = type(result.model).from_pretrained(tmp_path / "model").eval()
    assert torch.equal(outputs(loaded), outputs(result.model))


@every_net
def test_the_record_rebuilds_the_structure(name: str) -> None:
    result = halved(name)
    record = json.loads(json.dumps(result.record))
    assert record["hidden"] == [32, 16]
    fresh = PRUNER.replay(NETS[name]().eval(), record, inputs())
    fresh.load_state_dict(result.model.state_dict())
    assert torch.equal(outputs(fresh), outputs(result.model))


@pytest.mark.parametrize("name", ["bert", "bert-words"])
def test_what_is_left_answers_as_the_whole_with_the_rest_masked(name: str) -> None:
    """Without a channel, everything else computes as with it at zero, and left out of every normalisation."""
    model = copy.deepcopy(original(name))
    kept = [0, 3, 4, 5, 8, 9, 11, 16, 17, 20, 22, 25, 26, 28, 30, 31]
    masked = copy.deepcopy(model)
    gone = torch.tensor(sorted(set(range(32)) - set(kept)))

    def over_the_kept(module: Any, given: tuple[Tensor], _: Tensor) -> Tensor:
        x = given[0].clone()
        mean = x[..., kept].mean(-1, keepdim=True)
        deviation = (x[..., kept] - mean).square().mean(-1, keepdim=True).add(module.eps).sqrt()
        x = (x - mean) / deviation * module.weight + module.bias
        return x.index_fill(-1, gone, 0.0)

    for module in masked.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(over_the_kept)
        if name == "bert" and module is masked.bert.pooler.dense:
            with torch.no_grad():
                module.weight[gone] = 0
                module.bias[gone] = 0
    if name == "bert-words":  # the prediction head's transform has a function between its matrix and its norm
        masked.cls.predictions.transform.dense.register_forward_hook(lambda _m, _g, out: out.index_fill(-1, gone, 0.0))
    keep_channels(model, stream(model, name), kept)
    before, after = outputs(masked), outputs(model)
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-5 * float(before.abs().max()))
    assert not torch.allclose(outputs(original(name)), after, rtol=1e-2, atol=1e-2)


def test_weights_that_layers_share_stay_shared() -> None:
    model = halved("gpt2").model
    assert model.lm_head.weight is model.transformer.wte.weight
    assert model.lm_head.weight.shape == (50, 16)


def test_neurons_go_before_hidden_width() -> None:
    least = [apply(original("bert"), TransformerPruning(strength=s)).model.config for s in (0.5, 0.75, 1.0)]
    assert [c.hidden_size for c in least] == [32, 16, 8]
    assert [c.intermediate_size for c in least] == [20, 10, 1]
    assert [c.num_attention_heads for c in least] == [4, 2, 1]


@pytest.mark.parametrize("importance", ["taylor", "norm"])
def test_channels_that_do_nothing_go_first(importance: Any) -> None:
    model = copy.deepcopy(original("bert"))
    idle = list(range(1, 32, 2))
    with torch.no_grad():
        for name, axis in stream(model).cuts:
            model.get_parameter(name).index_fill_(axis, torch.tensor(idle), 0.0)
    work = context(model).task
    scores = channel_importance(model, stream(model).cuts, importance, work, 0)
    assert scores.shape == (32,)
    assert best_channels(scores, 16) == list(range(0, 32, 2))
    pruned = apply(model, HALF.model_copy(update={"importance": importance})).model
    words = model.bert.embeddings.word_embeddings.weight
    assert torch.equal(pruned.bert.embeddings.word_embeddings.weight, words[:, ::2])


def test_steps_end_at_the_same_widths() -> None:
    seen: list[int] = []

    def recover(model: Any, _: int) -> int:
        seen.append(model.bert.embeddings.word_embeddings.weight.shape[1])
        return 1

    result = apply(original("bert"), HALF.model_copy(update={"steps": 4}), recover=recover)
    assert seen == [28, 24, 20]
    assert result.record == halved("bert").record


def test_a_model_that_answers_with_the_stream_itself_keeps_its_heads() -> None:
    torch.manual_seed(0)
    model = hf.BertModel(hf.BertConfig(**SIZES)).eval()
    with pytest.raises(CannotCompress, match="can't say fewer heads"):
        apply(model, HALF)
    both = apply(model, TransformerPruning(strength=1.0)).model
    assert (both.config.hidden_size, both.config.num_attention_heads, both.config.intermediate_size) == (32, 4, 1)


def test_layers_around_the_pretrained_model_keep_its_width() -> None:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = copy.deepcopy(original("bert").bert)
            self.mine = nn.Linear(32, 3)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return self.mine(functional.relu(hidden[:, 0]))

    result = apply(Classifier().eval(), TransformerPruning(strength=1.0))
    assert result.model.bert.config.hidden_size == 32
    assert "hidden" not in result.record


def test_the_narrow_model_runs_as_onnx() -> None:
    model = halved("bert").model
    session = onnxruntime.InferenceSession(export(model, inputs()).SerializeToString())
    given = inputs()
    assert isinstance(given, Bundle)
    (got,) = session.run(None, {n: t.numpy() for n, t in zip(given.names, given.tensors, strict=True)})
    assert np.allclose(got, outputs(model).numpy(), atol=1e-4)
