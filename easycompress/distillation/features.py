"""Attention transfer: the compressed model learns where the original looks, not only what it answers.

Zagoruyko and Komodakis, ICLR 2017, section 3.1. A layer's attention map is the mean of its squared activations over the
channels. Channels may have gone, the places stay, so that a pruned layer's map can be held against the original's.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from easycompress.core.errors import CannotCompress
from easycompress.core.inputs import Inputs, answer, first

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from typing_extensions import Self

    from easycompress.training.terms import Teacher, Term

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

LEAST_DIMENSIONS = 3
"""Of outputs with places in them: (N, C, L), (N, T, D), (N, C, H, W), ..."""

LEAST_BLOCKS = 2
"""Where fewer blocks than this repeat, single layers are compared."""


def attention_map(features: Tensor, channels: int) -> Tensor:
    """Return where features (N, ..., C at dimension `channels`, ...) are strong: (N, places), each row of norm 1."""
    return functional.normalize(features.float().square().mean(channels).flatten(1), dim=1)


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return |student - teacher|^2 of maps (N, places), mean over the samples: between 0 and 2.

    Equation 2 of the paper with the norm squared, as its authors' code has it: smooth where the maps agree.
    """
    return (student - teacher).square().sum(1).mean()


class Maps:
    """The attention maps of chosen layers at a model's last pass, by name, in the order in which they ran."""

    def __init__(self, model: nn.Module, names: Sequence[str], *, training: bool = False) -> None:
        self.model, self.training = model, training
        self.seen: dict[str, Tensor] = {}
        modules = dict(model.named_modules())
        self._hooks = [modules[name].register_forward_hook(self._keeper(name, modules[name])) for name in names]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self.seen = {}

    def take(self) -> dict[str, Tensor]:
        """Return what was seen, and forget it."""
        taken, self.seen = self.seen, {}
        return taken

    def _keeper(self, name: str, module: nn.Module) -> Any:  # noqa: ANN401 - a forward hook
        channels = _channels(module)

        def keep(module: nn.Module, _inputs: object, output: object) -> None:
            if self.training and not module.training:
                return  # an evaluation between two steps
            try:
                tensor = first(output)
            except TypeError:
                return
            if tensor.dim() >= LEAST_DIMENSIONS and tensor.is_floating_point():
                self.seen.pop(name, None)  # a layer that runs again is complete later than it was
                own = tensor.clone() if self.training else tensor  # an activation in place would change it
                self.seen[name] = attention_map(own, channels)

        return keep


def _channels(module: nn.Module) -> int:
    """Return the dimension of a module's channels: convolutions have them second, everything else last."""
    return 1 if any(isinstance(inner, CONVOLUTIONS) for inner in module.modules()) else -1


@dataclass(frozen=True)
class Imitation:
    """`term` + `weight` x the attention loss, mean over the layers. The teacher runs once a batch."""

    term: Term
    weight: float
    student: Maps
    teacher: Maps

    def __call__(self, outputs: Tensor, targets: Tensor | None, inputs: Inputs, places: Tensor) -> Tensor:
        """Return the loss of the batch that the student has just answered."""
        mine = self.student.take()
        loss = self.term(outputs, targets, inputs, places)
        theirs = self.teacher.take()  # there already if the term has asked the teacher itself
        if not theirs:
            with torch.no_grad():
                answer(self.teacher.model, inputs)
            theirs = self.teacher.take()
        parts = [attention_loss(mine[name], theirs[name]) for name in theirs if name in mine]
        return loss + self.weight * torch.stack(parts).mean() if parts else loss


@contextmanager
def imitating(
    student: nn.Module, teacher: Teacher | None, term: Term, example: Inputs, *, weight: float, layers: int
) -> Iterator[Term]:
    """Give the term with `weight` x attention transfer from at most `layers` layers; the same term for weight 0.

    Inside, both models carry hooks. Raises CannotCompress when they share no layer that can be compared.
    """
    if not weight or teacher is None:
        yield term
        return
    names = common_layers(student, teacher.model, example, layers)
    with Maps(student, names, training=True) as mine, Maps(teacher.model, names) as theirs:
        yield Imitation(term, weight, mine, theirs)


def common_layers(student: nn.Module, teacher: nn.Module, example: Inputs, most: int) -> list[str]:
    """Return the names of at most `most` layers, spread over the depth, whose maps have the same shape in both models.

    Stages or blocks where they repeat, otherwise single layers. Raises CannotCompress without any.
    """
    both = [_shapes(model.eval(), example) for model in (teacher, student)]
    shared = [name for name, shape in both[0].items() if both[1].get(name) == shape]
    found = _blocks(teacher, shared)
    if len(found) < LEAST_BLOCKS:
        modules = dict(teacher.named_modules())
        found = [name for name in shared if _is_layer(modules[name])]
    if not found:
        raise CannotCompress(
            "distillation: features: no layer of the same name gives maps of the same size in the original and in the "
            "compressed model; leave features at 0"
        )
    count = min(most, len(found))
    return [found[(i + 1) * len(found) // count - 1] for i in range(count)]


def _shapes(model: nn.Module, example: Inputs) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes of all maps that a model has, in the order in which they are complete, last time counting."""
    names = [name for name, _ in model.named_modules() if name]
    with ExitStack() as stack, torch.no_grad():
        maps = stack.enter_context(Maps(model, names))
        answer(model, example)
        return {name: tuple(map_.shape) for name, map_ in maps.seen.items() if len(map_) == len(example)}


def _blocks(model: nn.Module, shared: Sequence[str]) -> list[str]:
    """Return which of the modules are blocks: with layers inside, of a class that repeats, in no other such block.

    A class doesn't repeat by what lies inside one of its own: a shortcut of two layers in a sequence of blocks.
    """
    modules = dict(model.named_modules())
    composite = [name for name in shared if any(_is_layer(m) for m in list(modules[name].modules())[1:])]
    kinds: dict[type[nn.Module], list[str]] = {}
    for name in composite:
        kinds.setdefault(type(modules[name]), []).append(name)
    repeated = [name for same in kinds.values() if len(_outer(same)) > 1 for name in _outer(same)]
    found = _outer(repeated)
    return [name for name in composite if name in found]


def _outer(names: Sequence[str]) -> list[str]:
    """Return the names of modules that lie in none of the others."""
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]


def _is_layer(module: nn.Module) -> bool:
    """Tell whether a module multiplies by a weight of its own; libraries have linear layers that aren't torch's."""
    own = module.parameters(recurse=False)
    return not isinstance(module, nn.Embedding) and any(parameter.dim() > 1 for parameter in own)
