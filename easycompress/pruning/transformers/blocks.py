"""What can be taken out of a transformer: blocks of heads or neurons, and the tensors that each of them cuts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

Role = Literal["", "query", "key", "value", "output"]


@dataclass(frozen=True)
class Cut:
    """A tensor's axis that shrinks with a block: `width` places a unit, the first unit's at `offset`.

    `per` is what a unit is: a head or neuron, or a group of query heads that share a key and a value. `role`: what the
    places of a head are its dimensions of; empty where they are none, or mixed.
    """

    tensor: str
    axis: int
    per: Literal["unit", "group"] = "unit"
    width: int = 1
    offset: int = 0
    role: Role = ""


@dataclass(frozen=True)
class Block:
    """Units that can go one by one: `units` query heads in `groups` key-value groups, or neurons.

    `outputs` are the cuts of the matrix through which alone a unit reaches the rest of the model; `inputs` all others.
    Blocks with the same `tie` must lose the same heads.
    """

    name: str
    kind: Literal["attention", "feed-forward"]
    units: int
    groups: int
    inputs: tuple[Cut, ...]
    outputs: tuple[Cut, ...]
    tie: str

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """Return every cut."""
        return (*self.inputs, *self.outputs)


@dataclass(frozen=True)
class Matrix:
    """A linear layer by its path; `rows` and `columns` are the axes of its outputs and its inputs."""

    path: str
    rows: int
    columns: int
    outputs: int
    inputs: int
    bias: bool

    def out(
        self, per: Literal["unit", "group"] = "unit", width: int = 1, offset: int = 0, role: Role = ""
    ) -> list[Cut]:
        """Return the cuts of its outputs."""
        found = [Cut(f"{self.path}.weight", self.rows, per, width, offset, role)]
        return found + ([Cut(f"{self.path}.bias", 0, per, width, offset, role)] if self.bias else [])

    def into(self, width: int = 1, role: Role = "") -> tuple[Cut, ...]:
        """Return the cut of its inputs."""
        return (Cut(f"{self.path}.weight", self.columns, "unit", width, 0, role),)


def matrix(root: nn.Module, path: str, prefix: str = "") -> Matrix | None:
    """Return the linear layer at `path` below `root`, named with `prefix`, None where there is none.

    The Conv1D of GPT-2 is a linear layer with a transposed weight; it is known by its own counts, nf and nx.
    """
    try:
        module = root.get_submodule(path)
    except AttributeError:
        return None
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2:  # noqa: PLR2004 - a matrix
        return None
    full = f"{prefix}.{path}" if prefix else path
    bias = isinstance(getattr(module, "bias", None), Tensor)
    if isinstance(module, nn.Linear):
        return Matrix(full, 0, 1, weight.shape[0], weight.shape[1], bias)
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
        return Matrix(full, 1, 0, weight.shape[1], weight.shape[0], bias)
    return None
