"""Random small networks, many of them ill, through a random technique: what comes out must agree with what is written.

`python -m benchmarks.numerics [--nets 300] [--first 0]`. Each net is drawn by its number, gets one affliction (dead
channels, huge weights, float16, one class only, ...) and one recipe. Checked: the caller's model is bit for bit what it
was; the written file answers as the returned module does; the report has no number that isn't one; or there is a
refusal in one line. Results are counted in results/numerics.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

import easycompress as ec
from benchmarks.numerics_nets import AFFLICTIONS, DATA_AFFLICTIONS, random_net, samples
from easycompress.artifact.write import write_model
from easycompress.core.errors import EasyCompressError
from easycompress.measure import latency

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).parent / "results" / "numerics.json"

RECIPES = (
    "{kind: entropy-quantization, strength: 0.3}",
    "{kind: structured-pruning, strength: 0.4, steps: 1}",
    "{kind: unstructured-pruning, strength: 0.5}",
    "{kind: low-rank-layers, strength: 0.4}",
    "{kind: float16}",
    "{kind: static-int8}",
    "{kind: dynamic-int8}",
    "{kind: weight-only, bits: 4}",
)

NEAR = 1e-3
"""Largest difference of file and module relative to the largest answer; integers of activations are the exception."""

ROUNDING = 10
"""How often the difference of the original's file and module may be had too: huge numbers cancel, with what remains."""

NEAR_IN_INTEGERS = 0.15
"""The same where activations are integers too: the module computes with the stored weights, in floats."""

OF_ACTIVATIONS = ("static-int8", "dynamic-int8", "weight-only")
"""ONNX Runtime multiplies blocks of 4 bits by activations in 8 bits."""

BEYOND_INTEGERS = ("channels of unequal size", "huge weights")
"""Activations that 256 levels can't hold, so that only the report's numbers tell what the integers did to the model."""


def one(number: int, folder: Path, affliction: str | None = None) -> tuple[str, str]:
    """Compress the net `number` and return (what was done, what came of it); what went wrong begins with `WRONG`."""
    choice = random.Random(number)  # noqa: S311 - a seed's draws
    torch.manual_seed(number)
    names = [*AFFLICTIONS, *DATA_AFFLICTIONS]
    chosen = affliction or choice.choice(names)
    model = random_net(choice)
    AFFLICTIONS.get(chosen, lambda _: None)(model)
    inputs, targets = DATA_AFFLICTIONS.get(chosen, lambda pair: pair)(samples(model, choice))
    recipe = choice.choice(RECIPES)
    path = folder / "recipe.yaml"
    path.write_text(f"steps: [{recipe}]")
    done = f"{chosen}, {recipe}"
    before = copy.deepcopy(model)
    try:
        result = ec.compress(
            model, train=(inputs, targets), test=(inputs, targets), target="max", max_drop="99%", budget="none",
            recipe=str(path), out=folder / "out", threads=1, force=True,
        )  # fmt: skip
    except EasyCompressError as error:
        text = str(error)
        return done, f"refused: {text}" if "\n" not in text and not changed(before, model) else f"WRONG refusal: {text}"
    except Exception as error:  # noqa: BLE001 - what is counted here
        return done, f"WRONG: {type(error).__name__}: {error}"
    if changed(before, model):
        return done, f"WRONG: {changed(before, model)} of the caller's model changed"
    in_integers = any(name in recipe for name in OF_ACTIVATIONS)
    limit = NEAR_IN_INTEGERS if in_integers else NEAR
    if in_integers and chosen in BEYOND_INTEGERS:
        limit = math.inf
    return done, judged(result, before, inputs, limit)


def judged(result: ec.Result, original: nn.Module, inputs: Tensor, limit: float) -> str:
    """Return `agrees`, or what is wrong with a result."""
    text = (result.out / "report.json").read_text()
    if "NaN" in text or "Infinity" in text:
        return "WRONG: the report holds what is no number"
    off = apart(result.model, result.out / "model.onnx", inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_model(copy.deepcopy(original).float().eval(), inputs[:2].float(), path)
        allowed = limit + ROUNDING * apart(copy.deepcopy(original), path, inputs)
    if not off <= allowed:
        return f"WRONG: file and module are {off:.3g} of the largest answer apart"
    return "agrees" if result.report.ratio != 1 else "agrees: the original, as nothing was gained"


def apart(module: nn.Module, path: Path, inputs: Tensor) -> float:
    """Return how far a file's answers are from a module's, relative to the largest; infinite where shapes differ."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    written = session.run(None, {session.get_inputs()[0].name: inputs.float().numpy()})[0]
    with torch.no_grad():
        answers = module.eval().float()(inputs.float()).numpy()
    if written.shape != answers.shape or (np.isfinite(answers) != np.isfinite(written)).any():
        return math.inf
    finite = np.isfinite(answers)
    scale = float(np.abs(answers[finite]).max(initial=0.0)) or 1.0
    return float(np.abs(written[finite] - answers[finite]).max(initial=0.0)) / scale


def changed(before: nn.Module, after: nn.Module) -> str:
    """Return the name of the first tensor or setting in which two models differ; empty where none does."""
    if before.training != after.training:
        return "the mode"
    known = dict(after.state_dict())
    for name, tensor in before.state_dict().items():
        other = known.get(name)
        if other is None or other.dtype != tensor.dtype or other.stride() != tensor.stride():
            return name
        if not torch.equal(tensor.nan_to_num(), other.nan_to_num()):
            return name
    flags = zip(before.parameters(), after.parameters(), strict=True)
    return "requires_grad" if any(a.requires_grad != b.requires_grad for a, b in flags) else ""


def counted(outcomes: Sequence[str]) -> dict[str, int]:
    """Return how often each kind of outcome came."""
    return dict(Counter(outcome.partition(":")[0] for outcome in outcomes))


def main() -> None:
    """Go through the nets and print what came of each, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    latency.PATIENCE, latency.ROUNDS = 0.0, 1  # times are not looked at
    by_affliction: dict[str, list[str]] = {}
    wrong: dict[str, str] = {}
    for number in range(options.first, options.first + options.nets):
        with tempfile.TemporaryDirectory() as folder:
            done, outcome = one(number, Path(folder))
        by_affliction.setdefault(done.partition(",")[0], []).append(outcome)
        if outcome.startswith("WRONG"):
            wrong[str(number)] = f"{done}: {outcome}"
        print(f"{number}: {done}: {outcome}", flush=True)
    table: dict[str, Any] = {name: counted(outcomes) for name, outcomes in sorted(by_affliction.items())}
    RESULTS.write_text(
        json.dumps({"nets": options.nets, "first": options.first, "table": table, "wrong": wrong}, indent=1)
    )
    for name, counts in table.items():
        print(f"{name}: {counts}")
    print(f"{options.nets} nets, {len(wrong)} wrong")


if __name__ == "__main__":
    main()
