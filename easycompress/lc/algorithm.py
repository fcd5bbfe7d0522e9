"""The learning-compression algorithm (LC papers, figure 2 and appendix A)."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

from easycompress.lc.cstep import Theta, by_parameter, c_step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from easycompress.codes.base import Code
    from easycompress.lc.schedule import Penalty
    from easycompress.lc.tasks import Task

MOMENTUM_GAIN = 10.0
"""1 / (1 - momentum): how far momentum 0.9 carries a gradient in the end. The pull must be as strong as that."""

FEASIBLE = 1e-3
"""The loop ends when ||w - Delta(Theta)|| is at most this share of ||w||: rounding to the code then changes nothing."""


class LStep(Protocol):
    """Trains the model for one L step: the loss plus the pull, which it calls after every step of the optimizer."""

    def __call__(self, model: nn.Module, step: int, pull: Pull, /) -> float:
        """Return the mean training loss."""
        ...


@dataclass
class Loop:
    """The state between two steps: everything that a resume needs.

    `beta` are the multipliers by parameter. `rows` hold, a step: mu, distance ||w - Delta||, relative distance, loss,
    quality of the compressed net (NaN if nobody asked), seconds of the L and of the C step, rounds of alternation.
    """

    step: int
    theta: Theta
    beta: dict[str, Tensor]
    rows: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Watch:
    """What the caller wants to see: `evaluate(model)` of the compressed net; `save(loop)` after every step.

    `done(loop)` ends the loop early. `last()` is called after it, when the weights are still those of the last L step.
    """

    evaluate: Callable[[nn.Module], float] | None = None
    save: Callable[[Loop], None] = lambda _: None
    done: Callable[[Loop], bool] = lambda _: False
    last: Callable[[], None] = lambda: None


def learning_compression(
    model: nn.Module,
    tasks: Sequence[Task],
    penalty: Penalty,
    l_step: LStep,
    watch: Watch | None = None,
    loop: Loop | None = None,
) -> Loop:
    """Minimise the loss under w = Delta(Theta). `model`, changed in place, ends with the weights Delta(Theta).

    Without any step this is direct compression, Pi(w). Penalty forms use the first mu there: their cost has no
    meaning at mu = 0. `loop` goes on with an earlier run's state; the model must then have that run's weights.
    """
    watch = watch or Watch()
    w = parameters_of(model, tasks)
    if loop is None:
        theta = c_step(tasks, w, penalty(0))  # Theta <- Pi(w)
        loop = Loop(0, theta, {name: torch.zeros_like(value) for name, value in w.items()})
    while loop.step < penalty.steps and not _feasible(loop) and not watch.done(loop):
        mu = penalty(loop.step)
        begin = time.perf_counter()
        pull = Pull(w, _targets(tasks, loop, mu), mu)
        loss = l_step(model, loop.step, pull)  # w <- argmin L(w) + mu/2 ||w - Delta(Theta) - beta/mu||^2
        learned = time.perf_counter()
        shifted = {name: value.detach() - loop.beta[name] / mu for name, value in w.items()}
        loop.theta = c_step(tasks, shifted, mu, loop.theta)  # Theta <- argmin ||w - beta/mu - Delta(Theta)||^2 + ...
        delta = {name: code.dense() for name, code in by_parameter(tasks, loop.theta).items()}
        if penalty.method == "augmented-lagrangian":
            for name, value in w.items():
                loop.beta[name] -= mu * (value.detach() - delta[name])  # beta <- beta - mu (w - Delta(Theta))
        loop.step += 1
        loop.rows.append(_row(w, delta, mu, loss, loop.theta.rounds))
        loop.rows[-1] |= {"l_seconds": learned - begin, "c_seconds": time.perf_counter() - learned}
        loop.rows[-1]["quality"] = math.nan if watch.evaluate is None else _compressed(model, w, delta, watch.evaluate)
        watch.save(loop)
    watch.last()
    put(w, {name: code.dense() for name, code in codes(tasks, loop).items()})
    return loop


def _feasible(loop: Loop) -> bool:
    """Tell whether ||w - Delta(Theta)|| is small enough; asked before a step, so that a resumed run ends there too."""
    return bool(loop.rows) and loop.rows[-1]["relative"] <= FEASIBLE


def parameters_of(model: nn.Module, tasks: Sequence[Task]) -> dict[str, Tensor]:
    """Return the parameters that the tasks compress, by name."""
    return {name: model.get_parameter(name) for task in tasks for name in task.parameters}


def codes(tasks: Sequence[Task], loop: Loop) -> dict[str, Code]:
    """Return the code of every compressed parameter."""
    return by_parameter(tasks, loop.theta)


class Pull:
    """The penalty of the L step in proximal form: w <- (w + a t) / (1 + a), with a = rate x mu, after each step.

    It is stable at every mu, adds no gradient and nothing to autograd. The rate counts MOMENTUM_GAIN times, as momentum
    makes the loss's gradient count: else the loss would outweigh the penalty by that factor.
    """

    def __init__(self, weights: dict[str, Tensor], targets: dict[str, Tensor], mu: float) -> None:
        self.weights = list(weights.values())
        self.targets = [targets[name] for name in weights]
        self.mu = mu

    def __call__(self, rate: float) -> None:
        """Pull the weights, in place, towards their targets."""
        strength = MOMENTUM_GAIN * rate * self.mu
        weights = [weight.data for weight in self.weights]  # training may have moved them to another memory format
        for index, (weight, target) in enumerate(zip(weights, self.targets, strict=True)):
            if weight.stride() != target.stride():  # foreach is fast only where both are laid out alike
                self.targets[index] = torch.empty_like(weight).copy_(target)
        torch._foreach_lerp_(weights, self.targets, strength / (1 + strength))


def put(weights: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    """Copy values into parameters."""
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(values[name])


def _targets(tasks: Sequence[Task], loop: Loop, mu: float) -> dict[str, Tensor]:
    """Return t = Delta(Theta) + beta / mu."""
    return {name: code.dense() + loop.beta[name] / mu for name, code in codes(tasks, loop).items()}


def _row(w: dict[str, Tensor], delta: dict[str, Tensor], mu: float, loss: float, rounds: int) -> dict[str, float]:
    distance = math.sqrt(float(sum(torch.sum((v.detach() - delta[n]) ** 2) for n, v in w.items())))
    norm = math.sqrt(float(sum(torch.sum(v.detach() ** 2) for v in w.values())))
    relative = distance / norm if norm else (math.inf if distance else 0.0)
    return {"mu": mu, "distance": distance, "relative": relative, "loss": loss, "rounds": float(rounds)}


def _compressed(
    model: nn.Module, w: dict[str, Tensor], delta: dict[str, Tensor], evaluate: Callable[[nn.Module], float]
) -> float:
    """Evaluate the compressed net and put the weights back."""
    kept = {name: value.detach().clone() for name, value in w.items()}
    put(w, delta)
    model.eval()
    try:
        return evaluate(model)
    finally:
        put(w, kept)
