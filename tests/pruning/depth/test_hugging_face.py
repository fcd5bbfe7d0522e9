"""Depth pruning of Hugging Face models: their configuration stays true."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch

from easycompress.core.inputs import Bundle, Inputs, answer
from easycompress.pruning.depth.blocks import find_blocks
from easycompress.pruning.depth.removal import remove, restore

if TYPE_CHECKING:
    from pathlib import Path

transformers = pytest.importorskip("transformers")

COMMON = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}


def bert() -> Any:
    return transformers.BertForSequenceClassification(transformers.BertConfig(**COMMON))


def llama() -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**COMMON, num_key_value_heads=1))


def qwen() -> Any:
    layers = ["full_attention", "sliding_attention", "full_attention"]
    config = transformers.Qwen2Config(
        **COMMON, num_key_value_heads=1, layer_types=layers, use_sliding_window=True, sliding_window=4
    )
    return transformers.Qwen2ForCausalLM(config)


def t5() -> Any:
    config = transformers.T5Config(
        vocab_size=50, d_model=32, d_kv=16, d_ff=40, num_layers=3, num_heads=2, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config)


def convnext() -> Any:
    config = transformers.ConvNextConfig(hidden_sizes=[4, 6, 8, 10], depths=[1, 2, 3, 1], layer_scale_init_value=1.0)
    return transformers.ConvNextForImageClassification(config)


def tokens(*names: str) -> Inputs:
    ids = torch.randint(1, 50, (2, 7), generator=torch.Generator().manual_seed(1))
    return Bundle(tuple(torch.ones_like(ids) if name == "attention_mask" else ids for name in names), names)


TEXT = tokens("input_ids", "attention_mask")
PAIR = tokens("input_ids", "attention_mask", "decoder_input_ids")
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))

CASES = [
    (bert, TEXT, "bert.encoder.layer", "012", ["1"], {"num_hidden_layers": 2}),
    (llama, TEXT, "model.layers", "012", ["0", "1"], {"num_hidden_layers": 1}),
    (
        qwen,
        TEXT,
        "model.layers",
        "012",
        ["0"],
        {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    (t5, PAIR, "encoder.block", "12", ["1"], {"num_layers": 2, "num_decoder_layers": 3}),
    (t5, PAIR, "decoder.block", "12", ["1", "2"], {"num_layers": 3, "num_decoder_layers": 1}),
    (convnext, IMAGES, "convnext.encoder.stages.2.layers", "012", ["1"], {"depths": [1, 2, 2, 1]}),
]

every_case = pytest.mark.parametrize(
    ("make", "inputs", "path", "removable", "gone", "config"), CASES, ids=[f"{c[0].__name__} {c[2]}" for c in CASES]
)


def made(make: Any) -> Any:
    torch.manual_seed(0)
    return make().eval()


def answered(model: Any, inputs: Inputs) -> torch.Tensor:
    with torch.no_grad():
        return answer(model, inputs)


@every_case
def test_layers_go_and_the_configuration_says_so(
    make: Any, inputs: Inputs, path: str, removable: str, gone: list[str], config: dict[str, Any], tmp_path: Path
) -> None:
    model = made(make)
    before, wanted = copy.deepcopy(model.config.to_dict()), answered(model, inputs)
    found = [name.rpartition(".") for name in find_blocks(model, inputs).names]
    assert "".join(key for parent, _, key in found if parent == path) == removable
    assert model.config.to_dict() == before

    undo = remove(model, [f"{path}.{key}" for key in gone])
    short = answered(model, inputs)
    assert short.shape == wanted.shape
    assert not torch.allclose(short, wanted)
    assert {name: getattr(model.config, name) for name in config} == config
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert again.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(answered(again, inputs), short)

    restore(undo)
    assert {name: getattr(model.config, name) for name in config} == {name: before[name] for name in config}
    assert torch.equal(answered(model, inputs), wanted)


def test_places_in_caches_are_renumbered() -> None:
    model = made(llama)
    remove(model, ["model.layers.0"])
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1]


def test_the_layer_with_the_position_bias_stays() -> None:
    names = find_blocks(made(t5), PAIR).names
    assert "encoder.block.0" not in names
    assert "decoder.block.0" not in names
    assert "decoder.block.2" in names
