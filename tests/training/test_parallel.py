"""Two processes come to what one comes to."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from safetensors.torch import load_file

if TYPE_CHECKING:
    from torch import Tensor

pytest.importorskip("accelerate", reason="the optional extra `scale`")

CLOSE = 1e-5

HALF_CLOSE = 1e-3
"""bfloat16 has eight bits: each process rounds the gradients of its own share."""


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def launched(folder: Path, **environment: str) -> list[subprocess.Popen[str]]:
    """Start two processes of several.py, each of which saves into a folder of its own."""
    house = Path(__file__).parents[2]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, Path(__file__).with_name("several.py"), folder],
            env=os.environ | shared | environment | {"RANK": rank, "LOCAL_RANK": rank, "PYTHONPATH": str(house)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]


def ended(running: list[subprocess.Popen[str]], folder: Path) -> list[dict[str, Tensor]]:
    """Return what each process came to."""
    for process in running:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
    return [load_file(folder / str(rank) / "found.safetensors") for rank in range(2)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """What one process comes to, and what each of two does."""
    folder = tmp_path_factory.mktemp("several")
    running = launched(folder)
    sys.path.insert(0, str(Path(__file__).parent))
    import several  # noqa: PLC0415 - beside this file, and run by the processes too

    return [several.results(folder), *ended(running, folder)]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """What each of two processes comes to that were launched with --mixed_precision bf16."""
    folder = tmp_path_factory.mktemp("mixed")
    return ended(launched(folder, ACCELERATE_MIXED_PRECISION="bf16"), folder)


def apart(one: dict[str, Tensor], first: str, other: dict[str, Tensor], second: str) -> float:
    """Return how far two trainings came apart in any number."""
    keys = [key.partition(": ")[2] for key in one if key.startswith(f"{first}: ")]
    assert "conv.weight" in keys
    return max(
        float((one[f"{first}: {key}"].double() - other[f"{second}: {key}"].double()).abs().max()) for key in keys
    )


def compare(found: list[dict[str, Tensor]], name: str, alone: str | None = None) -> None:
    one, *two = found
    for other in two:
        assert apart(other, name, one, alone or name) < CLOSE


@pytest.mark.parametrize("name", ["sgd", "adamw", "pulled", "resumed"])
def test_two_processes_train_as_one_does(found: list[dict[str, Tensor]], name: str) -> None:
    """Also with batch norm, noise on the inputs, a layer that isn't used, and a last batch of three."""
    compare(found, name)


def test_what_differs_is_seen(found: list[dict[str, Tensor]]) -> None:
    with pytest.raises(AssertionError):
        compare(found, "pulled", alone="sgd")


def test_both_processes_have_the_same_weights_to_the_last_bit(found: list[dict[str, Tensor]]) -> None:
    _, one, other = found
    assert one.keys() == other.keys()
    assert all(bool((one[key] == other[key]).all()) for key in one)


def test_a_resumed_training_is_an_undisturbed_one(found: list[dict[str, Tensor]]) -> None:
    _, one, _ = found
    assert (one["resumed: conv.weight"] == one["sgd: conv.weight"]).all()


def test_a_copy_that_learns_gives_its_weights_back(found: list[dict[str, Tensor]]) -> None:
    compare(found, "copied", alone="pulled")


def test_divided_parameters_come_to_the_same(found: list[dict[str, Tensor]]) -> None:
    compare(found, "divided", alone="adamw")


def test_weights_that_change_after_each_step_are_not_divided(found: list[dict[str, Tensor]]) -> None:
    assert not any(key.startswith("refused") for key in found[1])


def test_two_processes_train_in_bfloat16_as_one_does(found: list[dict[str, Tensor]]) -> None:
    one, *two = found
    for other in two:
        assert apart(other, "half", one, "half") < HALF_CLOSE
        assert apart(other, "half", other, "sgd") > CLOSE


def test_accelerate_s_bfloat16_comes_to_the_same(
    found: list[dict[str, Tensor]], mixed: list[dict[str, Tensor]]
) -> None:
    for ours, theirs in zip(found[1:], mixed, strict=True):
        assert apart(theirs, "mixed", ours, "half") < HALF_CLOSE
        assert apart(theirs, "mixed", ours, "sgd") > CLOSE
        assert apart(theirs, "mixed copied", theirs, "mixed pulled") < HALF_CLOSE
        assert apart(theirs, "mixed copied", theirs, "mixed") > HALF_CLOSE


def test_divided_parameters_learn_in_bfloat16_too(
    found: list[dict[str, Tensor]], mixed: list[dict[str, Tensor]]
) -> None:
    for ours, theirs in zip(found[1:], mixed, strict=True):
        assert CLOSE < apart(theirs, "mixed divided", ours, "divided") < HALF_CLOSE


def test_mixed_precision_leaves_both_processes_the_same_weights(mixed: list[dict[str, Tensor]]) -> None:
    one, other = mixed
    assert one.keys() == other.keys()
    assert all(bool((one[key] == other[key]).all()) for key in one)
