"""Quantization-aware training of transformers: layers on three dimensions, attention, and tables of words."""

from __future__ import annotations

import copy
import functools
import importlib
import sys
from typing import TYPE_CHECKING, Any

import nets
import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from easycompress.artifact.onnx_export import export
from easycompress.artifact.slim import slim
from easycompress.core.inputs import Bundle, Inputs, answer, parts
from easycompress.core.progress import Silent
from easycompress.core.task import Split, Splits, Task
from easycompress.measure.runtime import Runtime
from easycompress.metrics import LOSSES, METRICS
from easycompress.quantization.expand import shares
from easycompress.quantization.graph import _normalises_by_layer
from easycompress.quantization.qat import QatQuantizer
from easycompress.quantization.qat_settings import QatInt8
from easycompress.quantization.simulate import Simulation, simulate
from easycompress.technique import Applied, Context
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.terms import Labels, make_teacher

sys.path.insert(0, __file__.rpartition("/")[0])
import transformer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx

ACTION = QatInt8(mode="budget", reduce_range=False)
WORDS, LENGTH, CLASSES = 50, 8, 4


class Decoder(nn.Module):
    """Attention that looks back only, with the library's own operator."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 24)
        self.norm = nn.LayerNorm(24)
        self.qkv = nn.Linear(24, 72)
        self.mixed = nn.Linear(24, 24, bias=False)
        self.output = nn.Linear(24, CLASSES)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.words(input_ids)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output((x + self.mixed(seen.transpose(1, 2).flatten(2))).mean(1))


def bert() -> nn.Module:
    hf = pytest.importorskip("transformers")
    config = hf.BertConfig(
        vocab_size=WORDS,
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=LENGTH,
        num_labels=CLASSES,
        hidden_dropout_prob=0.0,
    )
    model: nn.Module = hf.BertForSequenceClassification(config)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.3)
        if isinstance(module, nn.Linear):  # equal tensors are stored once
            nn.init.normal_(module.bias, std=0.1)
    return model


class Modern(nn.Module):
    """Root mean squares as in Llama, layers with a weight of inputs by outputs as in GPT-2, no scale as in T5."""

    def __init__(self) -> None:
        super().__init__()
        pytest.importorskip("transformers")
        layers = importlib.import_module("transformers.pytorch_utils")
        llama = importlib.import_module("transformers.models.llama.modeling_llama")
        self.words = nn.Embedding(WORDS, 24)
        self.norm = llama.LlamaRMSNorm(24)
        self.qkv, self.mixed = layers.Conv1D(72, 24), layers.Conv1D(24, 24)
        self.output = nn.Linear(24, CLASSES)
        for layer in (self.qkv, self.mixed):
            nn.init.normal_(layer.weight, std=0.2)
            nn.init.normal_(layer.bias, std=0.1)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.words(input_ids)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, scale=1.0)
        return self.output((x + self.mixed(seen.transpose(1, 2).flatten(2))).mean(1))


NETS: dict[str, Callable[[], nn.Module]] = {
    "bert": bert,
    "encoder": transformer.Transformer,
    "decoder": Decoder,
    "modern": Modern,
}
every_net = pytest.mark.parametrize("name", NETS)


def sentences(name: str, count: int) -> Inputs:
    generator = torch.Generator().manual_seed(count)
    ids = torch.randint(1, WORDS, (count, LENGTH), generator=generator)
    if name != "bert":
        return ids
    mask = torch.ones_like(ids)
    mask[::3, 5:] = 0
    return Bundle((ids, mask), ("input_ids", "attention_mask"))


def split(name: str, count: int) -> Split:
    inputs = sentences(name, count)
    return Split(inputs, parts(inputs)[0][:, :3].sum(1) % CLASSES)


@functools.cache
def trained(name: str) -> Task:
    """Return a float net that has learned something of its training data, as a task."""
    torch.manual_seed(0)
    model = NETS[name]().eval()
    train, other = split(name, 128), split(name, 1000)
    work = Task(
        model, Splits(train, train, train, other), sentences(name, 2), METRICS["accuracy"], LOSSES["cross-entropy"]
    )
    fit(model, train, Labels(work.loss), Schedule(epochs=6, lr=0.05, batch=32), nets.SPEED, Hooks(None), None)
    return work


def context(work: Task, epochs: int) -> Context:
    facts: Any = None  # apply asks the model itself
    data = work.data.select
    assert data.targets is not None

    def evaluate(model: nn.Module) -> float:
        with torch.no_grad():
            return 100 * float((answer(model, data.inputs).argmax(1) == data.targets).float().mean())

    settings: dict[str, Any] = {} if not epochs else {"speed": nets.SPEED, "evaluate": evaluate, "epochs": epochs}
    return Context(
        work, facts, 0, Silent(), teacher=lambda: make_teacher(work.model, work.data.train, cache=True), **settings
    )


@functools.cache
def applied(name: str, epochs: int = 2) -> tuple[Applied, onnx.ModelProto, Simulation]:
    work = trained(name)
    result = QatQuantizer().apply(copy.deepcopy(work.model), ACTION, context(work, epochs))
    assert result.file_pass is not None
    simulation = simulate(copy.deepcopy(result.model), ACTION.static(), context(work, 0))
    simulation.set_ranges(result.record.get("ranges", {}))
    return result, result.file_pass(export(result.model, work.example)), simulation


@every_net
def test_the_file_answers_as_the_module_that_was_trained(name: str, tmp_path: Path) -> None:
    result, proto, simulation = applied(name)
    path = tmp_path / "model.onnx"
    path.write_bytes(slim(proto).SerializeToString())
    inputs = trained(name).data.report.inputs
    answers = torch.as_tensor(Runtime(path, 1).run(inputs))
    with torch.no_grad():
        expected = answer(simulation.module, inputs)
    assert result.epochs == 2
    assert len(expected.argmax(1).unique()) == CLASSES  # not one answer for everything
    assert float((answers.argmax(1) == expected.argmax(1)).float().mean()) >= 0.999


@every_net
def test_the_file_has_the_trained_weights_and_ranges(name: str) -> None:
    result, proto, simulation = applied(name)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for owner, (scale, zero) in simulation.grids().items():
        assert float(stored[f"{owner}_scale"]) == pytest.approx(scale)
        assert int(stored[f"{owner}_zero_point"]) == zero
    before = dict(trained(name).model.named_parameters())
    moved = [n for n, p in result.model.named_parameters() if p.dim() > 1 and not torch.equal(p, before[n])]
    assert len(moved) == sum(p.dim() > 1 for p in before.values())


def test_products_and_words_are_stored_as_the_codes() -> None:
    result, proto, _ = applied("encoder")
    stored = [numpy_helper.to_array(t) for t in proto.graph.initializer if t.name.endswith("_quantized")]
    for code in result.codes.values():
        values = code.arrays()["values"].numpy()
        assert any(np.array_equal(s, values) or np.array_equal(s, values.T) for s in stored)
    assert {"words.weight", "query.weight", "wide.weight", "output.weight"} <= result.codes.keys()


def test_weights_of_inputs_by_outputs_are_rounded_by_output() -> None:
    result, proto, _ = applied("modern")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for name in ("qkv", "mixed"):
        weight = result.model.get_submodule(name).weight.detach().numpy()
        scale = stored[f"{name}.weight_scale"]
        assert scale.shape == (weight.shape[1],)
        np.testing.assert_allclose(stored[f"{name}.weight_quantized"] * scale, weight, rtol=1e-5, atol=1e-7)


def test_what_normalises_by_root_mean_square_is_a_transformer() -> None:
    def graph(*nodes: tuple[str, list[str], str]) -> onnx.ModelProto:
        made = [helper.make_node(kind, inputs, [output]) for kind, inputs, output in nodes]
        return helper.make_model(helper.make_graph(made, "g", [], []))

    mean, root = ("ReduceMean", ["squares"], "mean"), ("Sqrt", ["sum"], "root")
    added = ("Add", ["mean", "epsilon"], "sum")
    assert _normalises_by_layer(graph(("Pow", ["x", "two"], "squares"), mean, added, root))
    assert _normalises_by_layer(graph(("Mul", ["x", "x"], "squares"), mean, added, root))
    assert _normalises_by_layer(graph(("LayerNormalization", ["x", "w"], "y")))
    assert not _normalises_by_layer(graph(("Mul", ["x", "y"], "squares"), mean, added, root))
    assert not _normalises_by_layer(graph(("Relu", ["x"], "squares"), mean, added, root))
    assert not _normalises_by_layer(graph(("Sqrt", ["x"], "root")))


def test_a_gradient_reaches_every_parameter_of_the_simulation() -> None:
    module = copy.deepcopy(applied("bert")[2].module)
    answer(module, trained("bert").data.train.inputs[:16]).square().sum().backward()
    reached = {name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == {name for name, _ in trained("bert").model.named_parameters()}


def test_inputs_are_taken_in_order_and_by_keyword() -> None:
    work = trained("bert")
    _, _, simulation = applied("bert")
    ids, mask = parts(work.data.train.inputs[:8])
    with torch.no_grad():
        assert torch.equal(simulation.module(ids, mask), simulation.module(attention_mask=mask, input_ids=ids))


def test_shares() -> None:
    scores = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(shares(scores, None, causal=False), scores.softmax(-1))
    causal = shares(scores, None, causal=True)
    assert torch.allclose(causal.sum(-1), torch.ones(2, 3, 4))
    assert torch.equal(causal, causal.tril())
    mask = torch.ones(2, 1, 1, 4, dtype=torch.bool)
    mask[0, ..., 1:] = False
    mask[1] = False
    masked = shares(scores, mask, causal=False)
    assert torch.equal(masked[0, ..., 0], torch.ones(3, 4))
    assert torch.equal(masked[1], torch.zeros(3, 4, 4))
    added = torch.zeros(4, 4).masked_fill(~torch.ones(4, 4, dtype=torch.bool).tril(), float("-inf"))
    assert torch.allclose(shares(scores, added, causal=False), causal)
