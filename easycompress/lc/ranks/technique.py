"""Low rank as a technique: layers are replaced where that saves most for the least harm."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from easycompress.core.errors import CannotCompress
from easycompress.lc.factor import replace_layer
from easycompress.lc.ranks.allocation import chosen
from easycompress.lc.ranks.candidates import Candidate, candidates, see
from easycompress.lc.ranks.decompose import fitted, thinner
from easycompress.lc.ranks.settings import LowRankLayers
from easycompress.technique import Applied, Context, Need, checksum

if TYPE_CHECKING:
    from torch import nn

    from easycompress.core.inputs import Inputs
    from easycompress.core.profile import ModelProfile


class RankReducer:
    """Puts two or three thinner layers in the place of one, each at a rank of its own."""

    name = "low-rank-layers"
    settings = LowRankLayers
    needs: frozenset[Need] = frozenset()
    source = (
        "Zhang et al., TPAMI 2016 (responses); Idelbayev and Carreira-Perpinan, CVPR 2020 (schemes); "
        "Kim et al., ICLR 2016 (Tucker)"
    )

    def refuses(self, profile: ModelProfile, action: LowRankLayers) -> str | None:  # noqa: ARG002 - the protocol
        """Refuse a model without a matrix."""
        if not any(layer.family in ("convolutional", "linear", "attention") for layer in profile.layers):
            return "low-rank layers: the model has no convolution and no linear layer"
        return None

    def apply(self, model: nn.Module, action: LowRankLayers, context: Context) -> Applied:
        """Replace the layers that the strength asks for. What was measured is remembered, also by a resumed run.

        Raises CannotCompress at strength 0, the dry run, where no replacement saves anything; later, where the clock
        says so once more, nothing is replaced.
        """
        if action.strength is None:
            raise CannotCompress("low-rank layers: no strength was set")
        inputs = _inputs(context, action.samples)
        what = action.model_copy(update={"strength": None}).describe()
        found = context.remembered(what, model, lambda: _measured(what, model, inputs, action, context))
        if not found and action.strength == 0:
            raise CannotCompress(
                f"low-rank layers: no layer becomes {'faster' if action.gain == 'latency' else 'cheaper'} by low rank"
            )
        record: list[list[Any]] = []
        seen = see(model, inputs)
        for candidate in chosen(found, action.strength):
            layer = model.get_submodule(candidate.name)
            replace_layer(model, candidate.name, fitted(layer, candidate.scheme, candidate.ranks, seen[candidate.name]))
            record.append([candidate.name, candidate.scheme, list(candidate.ranks)])
        return Applied(model.eval(), {"layers": record})

    def replay(self, model: nn.Module, record: dict[str, Any], example: Inputs) -> nn.Module:  # noqa: ARG002 - the protocol
        """Put the recorded layers in; their weights come with the state dict."""
        for name, scheme, ranks in record["layers"]:
            replace_layer(model, name, thinner(model.get_submodule(name), scheme, tuple(ranks)))
        return model


def _measured(
    what: str, model: nn.Module, inputs: Inputs, action: LowRankLayers, context: Context
) -> list[list[Candidate]]:
    """Return the candidates; what the clock said of them a resumed run must not measure anew."""
    rows = context.once(
        f"{what}: {checksum(model)}",
        lambda: [[asdict(each) for each in group] for group in candidates(model, inputs, action)],
    )
    return [[Candidate(**{**each, "ranks": tuple(each["ranks"])}) for each in group] for group in rows]


def _inputs(context: Context, samples: int) -> Inputs:
    """Return calibration samples, or the example where there are none."""
    calibration = context.task.data.calibration
    return calibration.inputs[:samples] if len(calibration) else context.task.example
