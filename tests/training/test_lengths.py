"""Training without padding: what is cut, what isn't, and that the answers stay what they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertForSequenceClassification, BertForTokenClassification

from easycompress.core.inputs import Bundle, Inputs, answer
from easycompress.core.task import Split
from easycompress.training import terms
from easycompress.training.fit import Hooks, Schedule, fit
from easycompress.training.lengths import Lengths, lengths_of, shortened
from easycompress.training.speed import Speed
from easycompress.training.terms import Labels, make_teacher
from tests import tiny_bert

if TYPE_CHECKING:
    from easycompress.training.schedule import History

WIDTH, SAMPLES = 24, 70


def sentences(*, left: bool = False) -> Split:
    """Sentences of 3 to 9 tokens in tensors of 24."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 10, (SAMPLES,), generator=generator)
    mask = (torch.arange(WIDTH) < tokens[:, None]).long()
    mask = mask.flip(1) if left else mask
    words = torch.randint(5, 11, (SAMPLES, WIDTH), generator=generator) * mask
    return Split(Bundle((words, mask), ("input_ids", "attention_mask")), words[:, 0] % 2)


def bert(kind: type[Any] = BertForSequenceClassification, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = kind(tiny_bert.config(**options)).eval()
    return model


class OneLength(nn.Module):
    """Adds positions of one length to what it reads: it takes no other."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(11, 4), nn.Parameter(torch.ones(WIDTH, 4))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return ((self.words(input_ids) + self.places) * attention_mask[..., None]).sum(1)


class Unmasked(OneLength):
    """Takes the mean over all places, those of the padding too."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # noqa: ARG002 - as the others
        return self.words(input_ids).mean(1)


def found(model: nn.Module, split: Split) -> Lengths:
    lengths = lengths_of(model, split)
    assert lengths is not None
    return lengths


def test_a_padded_sentence_is_as_long_as_its_mask_says() -> None:
    split = sentences()
    tokens = found(bert(), split).tokens
    assert isinstance(split.inputs, Bundle)
    assert torch.equal(tokens, split.inputs.tensors[1].sum(1))


@pytest.mark.parametrize(
    "model", [OneLength(), Unmasked(), bert(BertForTokenClassification)], ids=lambda m: type(m).__name__
)
def test_a_model_that_answers_otherwise_without_the_padding_keeps_it(model: nn.Module) -> None:
    assert lengths_of(model, sentences()) is None


def _with(split: Split, **changed: Tensor) -> Split:
    assert isinstance(split.inputs, Bundle)
    tensors = dict(zip(split.inputs.names, split.inputs.tensors, strict=True)) | changed
    return Split(Bundle(tuple(tensors.values()), tuple(tensors)), split.targets)


def test_what_cannot_be_cut_or_is_not_worth_it_stays() -> None:
    split, model = sentences(), bert()
    assert lengths_of(model, sentences(left=True)) is None
    assert lengths_of(model, _with(split, attention_mask=torch.ones(SAMPLES, WIDTH).long())) is None
    assert lengths_of(model, _with(split, attention_mask=torch.zeros(SAMPLES, WIDTH).long())) is None
    assert lengths_of(model, _with(split, picture=torch.zeros(SAMPLES, 3))) is None
    assert lengths_of(model, split.take(slice(0, 0))) is None
    assert lengths_of(nn.Linear(4, 2), Split(torch.zeros(5, 4), None)) is None


def test_the_trial_leaves_the_model_in_the_mode_that_it_was_in() -> None:
    model = bert().train()
    found(model, sentences())
    assert model.training


def test_batches_hold_every_sample_once_and_are_of_about_one_length() -> None:
    lengths = found(bert(), sentences())
    torch.manual_seed(0)
    batches = lengths.batches(torch.randperm(SAMPLES), 8)
    assert sorted(torch.cat(batches).tolist()) == list(range(SAMPLES))
    assert [len(batch) for batch in batches].count(8) == SAMPLES // 8
    spread = [int(lengths.tokens[batch].max() - lengths.tokens[batch].min()) for batch in batches]
    assert max(spread) <= 2  # of 6 over all
    assert lengths.usual(8) == pytest.approx(float(lengths.tokens.float().mean()), abs=1)


def test_cut_sentences_are_answered_as_whole_ones() -> None:
    split, model = sentences(), bert()
    lengths = found(model, split)
    places = torch.tensor([3, 5, 8])
    cut = lengths.cut(split.inputs[places], places)
    assert isinstance(cut, Bundle)
    assert cut.tensors[0].shape == (3, int(lengths.tokens[places].max()))
    with torch.no_grad():
        torch.testing.assert_close(answer(model, cut), answer(model, split.inputs[places]), rtol=0, atol=1e-5)
    assert len(shortened(split.inputs, 5)) == SAMPLES


def test_the_teacher_answers_in_the_samples_own_order(monkeypatch: pytest.MonkeyPatch) -> None:
    split, model = sentences(), bert()
    fast = make_teacher(model, split, cache=True).logits
    monkeypatch.setattr(terms, "lengths_of", lambda *_: None)
    plain = make_teacher(model, split, cache=True).logits
    assert fast is not None
    assert plain is not None
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-5)


def test_training_sees_only_what_is_not_padding() -> None:
    split, model = sentences(), bert()
    seen: list[int] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            if self.training:
                seen.append(input_ids.shape[1])
            return answer(self.inner, Bundle((input_ids, attention_mask), ("input_ids", "attention_mask")))

    schedule = Schedule(epochs=2, lr=1e-3, optimizer="adamw", batch=4)
    speed = Speed(threads=1, channels_last=False, bfloat16=False, step_seconds=0.0)
    history = _trained(Watching(), split, loss, schedule, speed)
    assert len(seen) == 2 * -(-SAMPLES // 4)
    assert max(seen) <= 9
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]


def _trained(model: nn.Module, split: Split, loss: Any, schedule: Schedule, speed: Speed) -> History:
    return fit(model, split, Labels(loss), schedule, speed, Hooks(None), None)


def test_augmented_inputs_stay_whole() -> None:
    """Whatever augmentation does to a sentence, the mask of before tells nothing of it."""
    split, model = sentences(), bert()
    seen: list[tuple[int, ...]] = []

    def augment(inputs: Inputs) -> Inputs:
        assert isinstance(inputs, Bundle)
        seen.append(tuple(inputs.tensors[0].shape))
        return inputs

    schedule = Schedule(epochs=1, lr=1e-3, optimizer="adamw", batch=2)
    speed = Speed(threads=1, channels_last=False, bfloat16=False, step_seconds=0.0)
    fit(model, split, Labels(nn.functional.cross_entropy), schedule, speed, Hooks(None, augment=augment), None)
    assert seen == [(2, WIDTH)] * (SAMPLES // 2)
