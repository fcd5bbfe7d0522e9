"""What a model is made of: the facts that selection asks about."""

from __future__ import annotations

from typing import Literal

from easycompress.core.goal import Frozen

Architecture = Literal["fnn", "cnn", "transformer", "rnn", "other"]
Family = Literal["convolutional", "linear", "attention", "other"]


class LayerProfile(Frozen):
    """One module that owns parameters or does multiplications. `macs` per sample; `type` is the class name."""

    name: str
    type: str
    family: Family
    params: int
    macs: int


class ModelProfile(Frozen):
    """A model's facts. `params` and `macs` (per sample) are totals; `input_shape` is one sample's shape."""

    architecture: Architecture
    layers: tuple[LayerProfile, ...]
    params: int
    macs: int
    has_batch_norm: bool
    input_shape: tuple[int, ...]
    outputs: int

    def counts(self) -> dict[str, int]:
        """Return how many layers there are of each type."""
        types = [layer.type for layer in self.layers]
        return {kind: types.count(kind) for kind in dict.fromkeys(types)}

    def param_share(self) -> dict[Family, float]:
        """Return each family's share of the parameters, largest first."""
        return self._share([(layer.family, layer.params) for layer in self.layers])

    def mac_share(self) -> dict[Family, float]:
        """Return each family's share of the multiply-accumulates, largest first."""
        return self._share([(layer.family, layer.macs) for layer in self.layers])

    @staticmethod
    def _share(amounts: list[tuple[Family, int]]) -> dict[Family, float]:
        total = sum(amount for _, amount in amounts) or 1
        families = dict.fromkeys(family for family, _ in amounts)
        shares = {f: sum(amount for family, amount in amounts if family == f) / total for f in families}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))
