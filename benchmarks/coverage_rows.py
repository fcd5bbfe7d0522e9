"""The models of the coverage table, with random weights: torchvision's classification models and small transformers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import torch
import torchvision

from easycompress.core.inputs import Bundle, answer

if TYPE_CHECKING:
    from torch import nn

    from easycompress.core.inputs import Inputs

SIZES = (32, 64, 75, 96, 128, 224, 299)
"""Image sizes that are tried, smallest first."""

CLASSES = 10
SPREAD = 0.1
"""How far biases and statistics are moved: untrained they are all 0 or 1, which hides what is lost or mixed up."""

TOKENS, VOCABULARY = 12, 64
IMAGE_CONFIG = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT_CONFIG = {**IMAGE_CONFIG, "vocab_size": VOCABULARY, "max_position_embeddings": 32, "num_labels": 3}
DECODER = {**IMAGE_CONFIG, "vocab_size": VOCABULARY, "max_position_embeddings": 32, "use_cache": False}

TRANSFORMERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertConfig", "BertForSequenceClassification", TEXT_CONFIG),
    "roberta": ("RobertaConfig", "RobertaForSequenceClassification", TEXT_CONFIG | {"pad_token_id": 1}),
    "distilbert": (
        "DistilBertConfig",
        "DistilBertForSequenceClassification",
        {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "num_labels": 3,
         "max_position_embeddings": 32},
    ),
    "vit-hf": ("ViTConfig", "ViTForImageClassification", IMAGE_CONFIG | {"image_size": 32, "patch_size": 8}),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {"vocab_size": VOCABULARY, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4, "use_cache": False},
    ),
    "t5": (
        "T5Config",
        "T5ForConditionalGeneration",
        {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
         "use_cache": False, "decoder_start_token_id": 0},
    ),
    "llama-gqa": ("LlamaConfig", "LlamaForCausalLM", DECODER | {"num_key_value_heads": 2}),
    "mistral": ("MistralConfig", "MistralForCausalLM", DECODER | {"num_key_value_heads": 2}),
}  # fmt: skip
"""Name -> configuration class, model class and a small configuration."""


def names() -> list[str]:
    """Return every row of the table."""
    return [*torchvision.models.list_models(module=torchvision.models), *TRANSFORMERS]


def parameters(name: str) -> int:
    """Return how many parameters a torchvision model has, by the facts of its published weights; 0 where unknown."""
    if name in TRANSFORMERS:
        return 0
    weights = list(torchvision.models.get_model_weights(name))
    return int(weights[0].meta["num_params"]) if weights else 0


def inputs_of(name: str, count: int, size: int, seed: int = 0) -> Inputs:
    """Return `count` random samples for a row; `size` is the edge of an image."""
    generator = torch.Generator().manual_seed(seed)
    if name not in TRANSFORMERS or name == "vit-hf":
        return torch.randn(count, 3, size, size, generator=generator)
    tokens = torch.randint(2, VOCABULARY, (count, TOKENS), generator=generator)
    mask = torch.ones_like(tokens)
    if name == "t5":
        more = torch.randint(2, VOCABULARY, (count, TOKENS // 2), generator=generator)
        return Bundle((tokens, mask, more), ("input_ids", "attention_mask", "decoder_input_ids"))
    return Bundle((tokens, mask), ("input_ids", "attention_mask"))


def make(name: str, seed: int = 0) -> tuple[nn.Module, int]:
    """Return a row's model in evaluation mode and the smallest image size that it runs on."""
    torch.manual_seed(seed)
    model, size = _fresh(name)
    with torch.no_grad():
        for module in model.modules():
            for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                if tensor.dim() == 1 and tensor.is_floating_point():
                    tensor.mul_(1 + SPREAD * torch.rand_like(tensor)).add_(SPREAD * torch.rand_like(tensor))
    return model, size


def _fresh(name: str) -> tuple[nn.Module, int]:
    if name in TRANSFORMERS:
        library = importlib.import_module("transformers")
        config, kind, settings = TRANSFORMERS[name]
        return getattr(library, kind)(getattr(library, config)(**settings)).eval(), 32
    builder = torchvision.models.get_model_builder(name)
    if name.startswith("vit_"):
        size = 28 if name == "vit_h_14" else 32
        return builder(weights=None, image_size=size, num_classes=CLASSES).eval(), size
    options: dict[str, Any] = {"num_classes": CLASSES}
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": True, "aux_logits": True}
    model = builder(weights=None, **options).eval()
    return model, _smallest(model, name)


def _smallest(model: nn.Module, name: str) -> int:
    for size in SIZES:
        try:
            with torch.no_grad():
                answer(model, inputs_of(name, 2, size))
        except Exception:  # noqa: BLE001, S112 - whatever a forward runs into on an image that is too small
            continue
        return size
    raise ValueError(f"{name}: runs on none of the sizes {SIZES}")
