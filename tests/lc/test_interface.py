from __future__ import annotations

from typing import TYPE_CHECKING

import nets
import numpy as np
import onnxruntime
import pytest
import torch

from easycompress.core.errors import BadInput
from easycompress.lc.interface import (
    AdaptiveQuantization,
    ConstraintL0,
    LowRankAt,
    Ternarization,
    each,
    learn,
    weights_of,
)
from easycompress.lc.schedule import spread

if TYPE_CHECKING:
    from pathlib import Path

TRAIN = nets.digits().train


def test_the_papers_syntax_end_to_end(tmp_path: Path) -> None:
    model = nets.make(nets.Mlp)
    before = nets.state(model)
    names = weights_of(model)
    tasks = {**each(names, AdaptiveQuantization(2)), names: ConstraintL0(share=0.05)}
    made = learn(model, tasks, TRAIN, epochs=60)
    assert nets.same_state(before, nets.state(model))  # the caller's model
    assert made.epochs == 60
    assert nets.accuracy(made.model) > 70
    assert set(made.codes) == set(names)
    assert all(torch.equal(made.model.get_parameter(name), code.dense()) for name, code in made.codes.items())
    assert [row["mu"] for row in made.rows] == sorted(row["mu"] for row in made.rows)
    path = made.write(tmp_path / "model.onnx", nets.images(2))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = nets.images(5)
    answers = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]
    with torch.no_grad():
        assert np.allclose(answers, made.model(inputs).numpy(), atol=1e-4)
    assert path.stat().st_size < 4 * sum(p.numel() for p in model.parameters()) / 3
    packed = made.write(tmp_path / "model.onnx", nets.images(2), packed=True)
    assert packed.suffix == ".ecz"


def test_views_lists_and_a_schedule_of_ones_own() -> None:
    model = nets.make(nets.LeNet)
    tasks = {
        "conv2.weight": ("scheme-2", LowRankAt(4)),
        "fc1.weight": [Ternarization(scaled=True), ConstraintL0(kappa=5)],
        "fc2.weight": AdaptiveQuantization(4),
    }
    made = learn(model, tasks, TRAIN, epochs=5, penalty=spread(1e-3, 1.0, 4), lr=(0.05, 0.01))
    assert len(made.rows) == 4
    assert {name: code.form for name, code in made.codes.items()} == {
        "conv2.weight": "low-rank",
        "fc1.weight": "additive",
        "fc2.weight": "codebook",
    }


def test_a_killed_call_goes_on(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    class Killer:
        def say(self, text: str) -> None: ...

        def now(self, text: str) -> None:
            if "step 3/" in text:
                raise Killed

    tasks = {"hidden1.weight": AdaptiveQuantization(2)}
    steps = spread(1e-3, 1.0, 5)
    whole = learn(nets.make(nets.Mlp), tasks, TRAIN, epochs=6, penalty=steps)
    with pytest.raises(Killed):
        learn(
            nets.make(nets.Mlp), tasks, TRAIN, epochs=6, penalty=steps, checkpoint=tmp_path / "run", progress=Killer()
        )
    assert list(tmp_path.iterdir())
    resumed = learn(nets.make(nets.Mlp), tasks, TRAIN, epochs=6, penalty=steps, checkpoint=tmp_path / "run")
    assert nets.same_state(nets.state(resumed.model), nets.state(whole.model))


def test_direct_compression_and_what_is_refused() -> None:
    model = nets.make(nets.Mlp)
    made = learn(model, {"output.weight": AdaptiveQuantization(2)}, TRAIN, epochs=0)
    assert made.rows == ()
    assert len(torch.unique(made.model.get_parameter("output.weight"))) == 2
    with pytest.raises(BadInput, match="lc: -1 epochs: must be 0"):
        learn(model, {"output.weight": AdaptiveQuantization(2)}, TRAIN, epochs=-1)
    with pytest.raises(BadInput, match="no parameter 'fc'"):
        learn(model, {"fc": AdaptiveQuantization(2)}, TRAIN)
