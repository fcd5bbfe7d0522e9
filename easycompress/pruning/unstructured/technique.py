"""Unstructured pruning as a technique: rounds of removal and training, then sparse codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from easycompress.artifact.codable import codable, lacks_codable
from easycompress.codes.sparse import Sparse, sparse_from
from easycompress.core.errors import CannotCompress
from easycompress.pruning.unstructured.masks import choose, pattern_of
from easycompress.pruning.unstructured.saliency import obd
from easycompress.pruning.unstructured.schedule import course, kept_after
from easycompress.pruning.unstructured.settings import UnstructuredPruning, kept_at
from easycompress.pruning.unstructured.training import Masked
from easycompress.technique import Applied, Context, Need
from easycompress.training.norms import correct, observed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easycompress.core.inputs import Inputs
    from easycompress.core.profile import ModelProfile
    from easycompress.core.task import Split

LARGEST = 65504.0
"""What float16, in which the weights that stay are stored, holds."""


class UnstructuredPruner:
    """Removes single weights."""

    name = "unstructured-pruning"
    settings = UnstructuredPruning
    needs: frozenset[Need] = frozenset()
    source = "LeCun, Denker and Solla, Optimal Brain Damage, 1990; comparative study of pruning methods, section 3.2"

    def refuses(self, profile: ModelProfile, action: UnstructuredPruning) -> str | None:  # noqa: ARG002 - the protocol
        """Refuse a model without weights to prune."""
        lacking = lacks_codable(profile)
        return f"unstructured pruning: {lacking}" if lacking else None

    def apply(self, model: nn.Module, action: UnstructuredPruning, context: Context) -> Applied:
        """Remove weights in rounds as the context's epochs allow; without epochs all at once.

        How many stay depends on the settings and the shapes alone, so that a file written from an untrained copy is
        about as large as the trained one. Strength 0 leaves the model as it is.
        """
        strength = action.strength or 0.0
        weights = prunable(model)
        if not strength or not weights:
            return Applied(model.eval(), {"kept": 1.0})
        epochs = min(action.epochs or context.epochs, context.epochs) if context.speed is not None else 0
        samples = context.samples or len(context.task.data.train)
        plan = course(epochs, samples, action.rounds, penalised=action.weight_of_penalty() > 0)
        shares = kept_after(plan.rounds, kept_at(strength), action.curve)
        training = Masked(model, weights, action, context)
        training.with_penalty(plan.before)
        inputs = context.task.data.calibration.inputs
        what = f"batch norm over {len(inputs)} samples"
        masks: dict[str, Tensor] | None = None
        for index, share in enumerate(shares, start=1):
            last = index == plan.rounds
            if training.late and not last:
                continue
            masks = choose(
                saliency(model, weights, action, context), share, allowed=masks, pattern=pattern_of(action.n_m),
                by_layer=action.scope == "layer",
            )  # fmt: skip
            if not last:
                training.put(masks)
                training.between(index, plan)
                continue
            seen = context.remembered(what, model, lambda: observed(model, inputs))
            training.put(masks)
            correct(model, seen, inputs)
        training.finish(plan.after)
        codes = stored(weights)
        total = sum(weight.numel() for weight in weights.values())
        record = {"kept": sum(len(code.positions) for code in codes.values()) / total}
        return Applied(model.eval(), record, dict(codes), history=training.history, epochs=training.epochs)

    def replay(self, model: nn.Module, record: dict[str, Any], example: Inputs) -> nn.Module:  # noqa: ARG002 - the protocol
        """Change nothing: the zeros come with the state dict."""
        return model


def saliency(
    model: nn.Module, weights: Mapping[str, Tensor], action: UnstructuredPruning, context: Context
) -> dict[str, Tensor]:
    """Return what speaks for each weight, >= 0, on the CPU. Raises CannotCompress for obd without data."""
    few = _some(context, action.samples)
    if action.criterion == "magnitude":
        return {name: weight.detach().abs() for name, weight in weights.items()}
    if not len(few):
        raise CannotCompress("unstructured pruning: criterion obd needs training data; give some or use magnitude")
    return obd(model, weights, few, context.task.loss)


def _some(context: Context, count: int) -> Split:
    """Return `count` samples of the training split, of calibration where that is empty, the same for a seed."""
    data = context.task.data
    split = data.train if len(data.train) else data.calibration
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(context.seed))
    return split.take(order[:count])


def stored(weights: Mapping[str, Tensor]) -> dict[str, Sparse]:
    """Return the codes of the weights that aren't zero, and round these to what the codes say, in place."""
    codes = {}
    for name, weight in weights.items():
        dense = weight.detach()
        codes[name] = sparse_from(dense.clamp(-LARGEST, LARGEST), dense != 0)
        dense.copy_(codes[name].dense())
    return codes


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that a file can hold as codes, without those that float16 can't hold."""
    return {name: weight for name, weight in codable(model).items() if bool((weight.detach().abs() <= LARGEST).all())}
