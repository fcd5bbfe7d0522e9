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


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """What one process comes to, and what each of two does."""
    folder = tmp_path_factory.mktemp("several")
    house = Path(__file__).parents[2]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, Path(__file__).with_name("several.py"), folder],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": str(house)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    sys.path.insert(0, str(Path(__file__).parent))
    import several  # noqa: PLC0415 - beside this file, and run by the processes too

    alone = several.results(folder)
    for process in running:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
    return [alone, *(load_file(folder / str(rank) / "found.safetensors") for rank in range(2))]


def compare(found: list[dict[str, Tensor]], name: str, alone: str | None = None) -> None:
    one, *two = found
    keys = [key.partition(": ")[2] for key in two[0] if key.startswith(f"{name}: ")]
    assert "conv.weight" in keys
    for key in keys:
        expected = one[f"{alone or name}: {key}"].double()
        for other in two:
            assert (other[f"{name}: {key}"].double() - expected).abs().max() < CLOSE, f"{name}: {key}"


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
