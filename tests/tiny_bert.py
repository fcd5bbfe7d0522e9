"""Hugging Face folders small enough to make in a test: a tokenizer of a few words and a BERT of random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

if TYPE_CHECKING:
    from pathlib import Path

WORDS = (
    "good", "fine", "great", "bad", "poor", "awful", "film", "plot", "cast", "the", "a", "is", "was", "not", "very",
    "and", "##ly", "##s", "in", "paris", "france", "who", "where", "lives", "capital", "of",
)  # fmt: skip
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


MARKS = {
    "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
}  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    made = Tokenizer(WordPiece(vocabulary, unk_token=MARKS["unk_token"]))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=32, model_input_names=names, **MARKS)


def config(**options: Any) -> BertConfig:
    small = {
        "vocab_size": len(SPECIAL) + len(WORDS), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 32, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    return BertConfig(**(small | options))


def folder(path: Path, kind: type[Any] = BertForSequenceClassification, **options: Any) -> Path:
    """Write a folder of an untrained model of that class, with its tokenizer; return it."""
    torch.manual_seed(0)
    kind(config(**options)).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path
