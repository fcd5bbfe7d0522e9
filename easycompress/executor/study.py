"""Optuna as an adviser: which settings to try next, and whether a trial under way is worth going on with.

Each question is asked anew from what is known by then, with a seed of its own: a resumed run that knows the same trials
gets the same answers, and nothing but the journal needs to be kept.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from typing import TYPE_CHECKING, Any

from easycompress.core.errors import BadInput
from easycompress.core.knobs import Range

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easycompress.core.knobs import Knob, Value
    from easycompress.core.outcome import Trial

DRAWN = 4
"""Trials that are drawn at random, the usual settings included, before the densities of good and bad ones are."""

WARM_UP = 1 / 3
"""Share of a trial's epochs before it can be ended for being worse than the median of the others at that point."""

TRIALS_BEFORE = 3
"""Finished trials before any is ended early."""


def check_installed() -> None:
    """Raise BadInput where Optuna isn't there."""
    if importlib.util.find_spec("optuna") is None:
        raise BadInput('--search needs Optuna: pip install "easycompress[search]"')


class Asked:
    """One trial of a study that knows the `done` ones. `values` are what it is to try.

    `number` counts from 0; trial 0 has the usual settings. `steps` is how many points its curve will have at most.
    """

    def __init__(
        self, knobs: Mapping[str, Knob], done: Sequence[Trial], seed: int, steps: int, *, higher_is_better: bool
    ) -> None:
        import optuna  # noqa: PLC0415 - only with the extra [search]

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        spaces = {name: _space(optuna, knob) for name, knob in knobs.items()}
        number = len(done)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=DRAWN, multivariate=True, seed=(1000 * seed + number) % 2**32
            )
        pruner = optuna.pruners.MedianPruner(n_startup_trials=TRIALS_BEFORE, n_warmup_steps=math.ceil(WARM_UP * steps))
        study = optuna.create_study(
            direction="maximize" if higher_is_better else "minimize", sampler=sampler, pruner=pruner
        )
        for trial in done:
            study.add_trial(_known(optuna, trial, spaces))
        if not number:
            usual = {name: knob.within() if isinstance(knob, Range) else knob.usual for name, knob in knobs.items()}
            study.enqueue_trial(usual)
        self._trial = study.ask(spaces)
        self.values: dict[str, Value] = dict(self._trial.params)

    def hopeless(self, step: int, quality: float) -> bool:
        """Take note of the quality at a step, counted from 1; tell whether the trial isn't worth going on with."""
        self._trial.report(quality, step)
        return bool(self._trial.should_prune())


def _space(optuna: Any, knob: Knob) -> Any:  # noqa: ANN401 - an optional library's module and its types
    if isinstance(knob, Range):
        return optuna.distributions.FloatDistribution(knob.low, knob.high, log=knob.log)
    return optuna.distributions.CategoricalDistribution(knob.values)


def _known(optuna: Any, trial: Trial, spaces: Mapping[str, Any]) -> Any:  # noqa: ANN401 - an optional library's types
    """Return a trial as Optuna keeps it. One that couldn't be carried out, or gave no number, has failed."""
    states = {"finished": "COMPLETE", "ended": "PRUNED", "failed": "FAIL"}
    return optuna.trial.create_trial(
        state=getattr(optuna.trial.TrialState, states[trial.state]),
        params=dict(trial.values),
        distributions=dict(spaces),
        value=trial.quality if trial.state == "finished" else None,
        intermediate_values={step: value for step, value in enumerate(trial.curve, 1) if value is not None},
    )
