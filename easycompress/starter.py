"""The texts that `easycompress init` puts together: functions for a user to fill in, each with its contract."""

from __future__ import annotations

HEAD = '''\
"""What easycompress needs to know of this model. Each function says what it must return; replace the marked lines."""
import torch
'''

FACTORY = '''\
def make_model():
    """Return the module that the weights in {model} belong to; they are loaded into it afterwards."""
    from my_package import MyModel  # <- your own class

    return MyModel()
'''

DATA = '''\
def make_data():
    """Return the splits: any of train, validation, test. Train is learnt from, the others only measured on.

    Each is a DataLoader, a Dataset, a Hugging Face data set, an iterator of batches, or tensors; a batch is
    (inputs, targets), a dict of the model's keywords with its labels, or inputs alone.
    {sample}
    """
    from my_package import train_set, validation_set, test_set  # <- your own data

    return {{"train": train_set, "validation": validation_set, "test": test_set}}
'''

LOSS = '''\
def score(outputs, targets):
    """Return one score a sample, shape (N,), larger is better; write score.higher_is_better = False for the reverse.

    With score.corpus = True it returns one number for the whole split instead.
    """
    return -(outputs - targets).abs().flatten(1).mean(1)  # <- your own score


def loss(outputs, targets):
    """Return what training minimises: one number with a gradient."""
    return torch.nn.functional.l1_loss(outputs, targets)  # <- your own loss
'''

SAMPLES = {
    "image-classification": "Inputs are float (N, C, H, W) as the model takes them, normalised; targets int (N,).",
    "text-classification": 'A batch is {"input_ids": (N, T), "attention_mask": (N, T), "labels": (N,)}.',
    "token-classification": '{"input_ids": (N, T), "attention_mask": (N, T), "labels": (N, T)}; label -100: ignored.',
    "question-answering": "Better: --data FILE with the columns question, context, answers; it is tokenised then.",
    "language-modelling": '{"input_ids": (N, T), "attention_mask": (N, T), "labels": (N, T)}; label -100: ignored.',
    "regression": "Inputs are as the model takes them; targets float, of the shape of the model's outputs.",
    "segmentation": "Inputs are float (N, C, H, W); targets int (N, H, W), a class a pixel.",
    "other": "Inputs and targets are what the model and the functions below take.",
}
"""What one batch of each kind of task looks like."""

METRICS: dict[str, tuple[str | None, str]] = {
    "image-classification": ("accuracy", "or top5"),
    "text-classification": ("accuracy", "or f1"),
    "token-classification": ("token-f1", "or accuracy, a token each"),
    "question-answering": ("squad-f1", "or squad-em"),
    "language-modelling": ("perplexity", "lower is better"),
    "regression": ("mse", "lower is better; or mae, rmse, r2"),
    "segmentation": ("miou", "or accuracy, a pixel each"),
    "other": (None, "one score a sample"),
}
"""The usual metric of each kind of task, and what else there is."""
