"""Bad input gives one line that says what, where and what to do instead, the right exit code, and no output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from easycompress.intake.models import make_module

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Ran, Run

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0

GOAL = ("--target", "2x", "--max-drop", "5%", "--budget", "none")
MODEL = ("compress", "m.pt", "--factory", "net.py:make")
GOOD = (*MODEL, "--data", "d.npz", *GOAL, "-o", "out")


def without(*flags: str) -> tuple[str, ...]:
    """The good command line, less these flags and their values."""
    kept = list(GOOD)
    for flag in flags:
        at = kept.index(flag)
        del kept[at : at + 2]
    return tuple(kept)


def changed(**flags: str) -> tuple[str, ...]:
    """The good command line with other values."""
    names = {f"--{name.replace('_', '-')}": value for name, value in flags.items()}
    kept = without(*[name for name in names if name in GOOD])
    return (*kept, *[part for pair in names.items() for part in pair])


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of the folder with its bytes."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def one_line(ran: Ran, code: int = 2) -> str:
    """Check the form of a refusal and return its text."""
    assert ran.code == code, ran
    assert ran.err.startswith("easycompress: ")
    assert ran.err.endswith("\n")
    assert ran.err.count("\n") == 1
    for sign in ("Traceback", "Usage:", "╭", "│", "  File "):
        assert sign not in ran.err + ran.out
    return ran.err.removeprefix("easycompress: ").rstrip("\n")


@pytest.fixture
def refused(folder: Path, run: Run) -> Callable[..., str]:
    """Run a command that must be refused and must leave every file as it was; return its line."""

    def check(*arguments: str, code: int = 2) -> str:
        before = snapshot(folder)
        text = one_line(run(*arguments), code)
        assert snapshot(folder) == before
        assert (folder / "out").exists() == any(name.startswith("out/") for name in before)
        return text

    return check


def data(folder: Path, **changes: Any) -> None:
    """Rewrite d.npz with other arrays; None leaves one away."""
    arrays = {**np.load(folder / "d.npz"), **changes}
    np.savez(folder / "d.npz", **{name: value for name, value in arrays.items() if value is not None})


def state(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite m.pt after a change."""
    content = torch.load(folder / "m.pt")
    change(content)
    torch.save(content, folder / "m.pt")


# ---------------------------------------------------------------- the model


def test_missing_file(refused: Callable[..., str]) -> None:
    text = refused("compress", "none.pt", *GOOD[2:])
    assert text == "none.pt: doesn't exist; give a .safetensors or .pt file with --factory"


def test_a_name_that_no_disk_takes(refused: Callable[..., str]) -> None:
    assert "File name too long; check the path" in refused("compress", "a" * 300, *GOOD[2:-2])


def test_state_dict_that_does_not_fit(folder: Path, refused: Callable[..., str]) -> None:
    state(folder, lambda content: content.update({"body.weight": content.pop("head.weight")}))
    assert refused(*GOOD) == (
        "m.pt: doesn't fit the factory's module: missing head.weight; unexpected body.weight; "
        "give the factory that it was trained with"
    )


def test_pickle_without_trust(folder: Path, refused: Callable[..., str]) -> None:
    torch.save(nn.Linear(2, 2), folder / "m.pt")
    text = refused(*GOOD)
    assert "whose loading can run any code" in text
    assert "--trust-pickle" in text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            "def make(): raise ValueError('a bad\\nday')",
            "it raised ValueError: a bad day; it is called without arguments",
        ),
        ("raise ImportError('no such library')", "net.py raised ImportError: no such library"),
        ("def make() return 1", "net.py raised SyntaxError: expected ':'"),
        ("def build(): pass", "net.py has no function make; functions there: build"),
    ],
)
def test_factory_that_raises(folder: Path, refused: Callable[..., str], body: str, text: str) -> None:
    (folder / "net.py").write_text(body)
    assert refused(*GOOD).startswith(f"--factory net.py:make: {text}")


def test_state_dict_without_a_factory(refused: Callable[..., str]) -> None:
    assert refused(*without("--factory")).startswith("m.pt: a state dict holds weights only; add --factory file.py:")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(folder: Path, refused: Callable[..., str], bad: float) -> None:
    state(folder, lambda content: content["hidden.bias"][:3].fill_(bad))
    assert refused(*GOOD) == "model: hidden.bias holds 3 values that are NaN or infinite; repair the checkpoint"


UNKNOWN_OPERATOR = """
import torch
from net import Net

class Spectral(Net):
    def forward(self, x):
        return super().forward(torch.linalg.eigh(x + x.transpose(-1, -2))[1] * 0 + x)

def make():
    return Spectral()
"""


def test_operator_without_an_onnx_form_is_named(folder: Path, refused: Callable[..., str]) -> None:
    (folder / "spectral.py").write_text(UNKNOWN_OPERATOR)
    text = refused(*changed(factory="spectral.py:make"), code=3)
    assert text == (
        "operator aten._linalg_eigh has no ONNX form, so no file could run it; replace it in the model's forward"
    )


# ---------------------------------------------------------------- the data


def test_no_data(refused: Callable[..., str]) -> None:
    assert refused(*without("--data")) == (
        "no data given, so --max-drop 5% can't be judged: add --data (a file, a folder, a data set's name or "
        "file.py:function), or write it into an easycompress.toml beside the model; without any floor the weights "
        "alone are compressed and quality isn't judged"
    )


def test_data_that_is_not_there(refused: Callable[..., str]) -> None:
    assert refused(*changed(data="none.npz")).startswith("--data none.npz: no file ")
    assert refused(*changed(data="imagenet")).startswith("--data imagenet: not found; --data takes digits, ")


def test_data_without_labels(folder: Path, refused: Callable[..., str]) -> None:
    data(folder, y_val=None)
    assert refused(*GOOD) == (
        "validation: no labels; add them, or use --metric agreement, which compares with the original"
    )


def test_labels_outside_the_classes(folder: Path, refused: Callable[..., str]) -> None:
    data(folder, y_test=np.arange(120) % 4)
    assert refused(*GOOD).startswith("report: label 3, but the model has 3 outputs, so labels are 0..2; ")


def test_labels_that_count_from_one(folder: Path, refused: Callable[..., str]) -> None:
    data(folder, **{f"y_{split}": np.arange(120) % 3 + 1 for split in ("train", "val", "test")})
    assert refused(*GOOD).endswith("the labels seem to count from 1: subtract 1")


def test_empty_split(folder: Path, refused: Callable[..., str]) -> None:
    data(folder, x_val=np.zeros((0, 1, 8, 8), np.float32), y_val=np.zeros(0, np.int64))
    assert refused(*GOOD) == "validation: the split is empty; give samples, or leave it away"


def test_only_training_data(folder: Path, refused: Callable[..., str]) -> None:
    data(folder, x_val=None, x_test=None)
    assert refused(*GOOD).startswith("only training data is given: the model may have seen it")


def test_images_of_another_shape(folder: Path, refused: Callable[..., str]) -> None:
    data(folder, **{f"x_{split}": np.zeros((120, 1, 9, 12), np.float32) for split in ("train", "val", "test")})
    text = refused(*GOOD)
    assert text.startswith("the model doesn't take samples of shape (1, 9, 12): mat1 and mat2")
    assert text.endswith("; check --data against the model")


@pytest.mark.parametrize(("split", "name"), [("train", "train"), ("val", "validation"), ("test", "test")])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_data_that_is_not_finite(folder: Path, refused: Callable[..., str], split: str, name: str, bad: float) -> None:
    images = np.load(folder / "d.npz")[f"x_{split}"]
    images[[7, 9]] = bad
    data(folder, **{f"x_{split}": images})
    assert refused(*GOOD) == (
        f"{name}: NaN or infinity in the inputs of 2 of 120 samples, first at index 7; mend or remove them"
    )


def test_a_npz_that_is_none(folder: Path, refused: Callable[..., str]) -> None:
    (folder / "d.npz").write_text("hello")
    assert refused(*GOOD).startswith("--data d.npz: not a readable .npz of plain arrays: ")


# ---------------------------------------------------------------- the goal


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("0x", "a ratio must be positive; 10x means ten times smaller"),
        ("-3x", "a ratio must be positive; 10x means ten times smaller"),
        ("abc", "not a target; write a ratio (10x), a reduction (90%), an amount (120KB) or max"),
        ("0.5x", "below 1x the result would be larger than the original; write 2x?"),
    ],
)
def test_targets(refused: Callable[..., str], target: str, text: str) -> None:
    assert refused(*changed(target=target)) == f"--target {target}: {text}"


def test_floors(refused: Callable[..., str]) -> None:
    assert refused(*changed(max_drop="200%")) == (
        "--max-drop 200%: a drop of 200% leaves nothing; the floor must lie below 100%"
    )
    assert refused(*without("--max-drop"), "--min-quality", "101%").startswith("--min-quality 101%: accuracy lies")


def test_a_floor_above_the_original(folder: Path, refused: Callable[..., str]) -> None:
    labels = np.load(folder / "d.npz")["y_val"]
    data(folder, y_val=np.where(np.arange(120) < 30, (labels + 1) % 3, labels))
    assert refused(*without("--max-drop"), "--min-quality", "99%") == (
        "--min-quality 99%: the original itself reaches only 75.00 on select; lower the floor"
    )


def test_no_target_and_no_floor(refused: Callable[..., str]) -> None:
    assert refused(*without("--target")) == (
        "no target given: add --target 10x (ratio), 90% (reduction), an amount such as 120KB, or max"
    )
    assert refused(*without("--max-drop")) == (
        "no floor given: add --max-drop 1% (percentage points) or --min-quality 98%"
    )


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"objective": "speed"}, "--objective speed: unknown; use one of size, latency, compute, energy"),
        ({"metric": "f9"}, "--metric f9: unknown; use one of accuracy, agreement, top5, f1, "),
        ({"loss": "f9"}, "--loss f9: unknown; use one of cross-entropy, mse, mae, cosine, or file.py:function"),
        ({"backend": "tpu"}, "--backend tpu: input should be 'cpu' or 'gpu'"),
        ({"budget": "soon"}, "--budget soon: not a budget; write 20min, 90s, 2h, 30ep or none"),
        ({"format": "zip"}, "--format zip: not a format; write onnx, or packed for the smallest file"),
        ({"mean": "0.5,a", "std": "1"}, "--mean 0.5,a: not numbers; write one a channel, such as 0.49,0.48,0.45"),
        ({"mean": "0.5"}, "--mean without --std: give both; mean 0 and standard deviation 1 change nothing"),
        ({"mean": "0,0", "std": "1,1"}, "--mean: 2 numbers for 1 channels; give 1 or 1"),
        ({"mean": "0", "std": "0"}, "--std 0: a standard deviation must be positive"),
        ({"batch": "0"}, "--batch 0: input should be greater than or equal to 1"),
        ({"threads": "-1"}, "--threads -1: input should be greater than or equal to 0"),
        ({"seed": "-1"}, "--seed -1: input should be greater than or equal to 0"),
        ({"recipe": "none.yaml"}, "--recipe "),
    ],
)
def test_values(refused: Callable[..., str], flags: dict[str, str], text: str) -> None:
    assert refused(*changed(**flags)).startswith(text)


# ---------------------------------------------------------------- a baseline that knows nothing


@pytest.fixture
def clueless(folder: Path) -> Path:
    torch.manual_seed(3)
    torch.save(make_module("net.py:make", folder).state_dict(), folder / "m.pt")
    return folder


def test_baseline_no_better_than_chance(clueless: Path, refused: Callable[..., str]) -> None:
    text = refused(*GOOD)
    assert "no better than chance (33.33%)" in text
    assert "usually --mean and --std are missing or not those of its training" in text
    assert text.endswith("--force goes on")
    assert not (clueless / "out").exists()


def test_force_goes_on(clueless: Path, run: Run) -> None:
    ran = run(*changed(target="1x"), "--force", "--quiet")
    assert ran.code == 0
    assert (clueless / "out" / "model.onnx").is_file()


# ---------------------------------------------------------------- the output folder


def test_output_folder_with_foreign_files(folder: Path, refused: Callable[..., str]) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.tex").write_text("years of work")
    for more in ((), ("--force",), ("--resume",)):
        assert refused(*GOOD, *more) == (
            "out: holds other files (thesis.tex); easycompress writes only into a folder of its own: "
            "choose another with -o"
        )


def test_output_folder_of_an_interrupted_run(folder: Path, refused: Callable[..., str]) -> None:
    journal = folder / "out" / "journal"
    journal.mkdir(parents=True)
    (journal / "journal.json").write_text(
        json.dumps({"state": "running", "elapsed": 1.0, "fingerprint": {}, "entries": {}})
    )
    assert refused(*GOOD) == (
        "out: an interrupted run is in there; go on with --resume, start anew with --force, or use -o"
    )


def test_output_folder_that_is_a_file(folder: Path, refused: Callable[..., str]) -> None:
    (folder / "notes").write_text("x")
    assert refused(*GOOD[:-1], "notes").startswith("notes: is a file; ")
    assert refused(*GOOD[:-1], "notes/out").startswith("notes/out: ")
    assert refused(*GOOD[:-1], ".").startswith(".: holds other files (")


@pytest.mark.skipif(ROOT, reason="root may write anywhere")
def test_output_folder_that_may_not_be_written(folder: Path, run: Run) -> None:
    (folder / "locked").mkdir()
    (folder / "locked").chmod(0o500)
    try:
        text = one_line(run(*GOOD[:-1], "locked/out"))
    finally:
        (folder / "locked").chmod(0o700)
    assert text.startswith("locked/out: can't be created (Permission denied)")


def test_a_finished_folder_outlives_a_refused_run(folder: Path, run: Run, refused: Callable[..., str]) -> None:
    assert run(*changed(target="1x"), "--quiet").code == 0
    assert (folder / "out" / "report.json").is_file()
    refused(*changed(target="abc"))
    refused(*changed(metric="f9"))
    (folder / "spectral.py").write_text(UNKNOWN_OPERATOR)
    refused(*changed(factory="spectral.py:make"), code=3)


# ---------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("compress",), "Missing argument 'MODEL'; see easycompress compress --help"),
        (("inspect",), "Missing argument 'FILE'; see easycompress inspect --help"),
        (("compress", "m.pt", "--targt", "3x"), "No such option: --targt"),
        (("compress", "m.pt", "more.pt"), "Got unexpected extra argument(s) (more.pt)"),
        (("compress", "m.pt", "--target"), "Option '--target' requires an argument"),
        (("compress", "m.pt", "--batch", "many"), "Invalid value for '--batch': "),
        (("comprss", "m.pt"), "No such command 'comprss'. Did you mean 'compress'? see easycompress --help"),
        (("zzz",), "No such command 'zzz'; see easycompress --help"),
        (("--nonsense",), "No such option: --nonsense; see easycompress --help"),
        (("explain", "X9"), "explain X9: unknown rule; did you mean "),
        (("explain", "S1", "S2"), "Got unexpected extra argument(s) (S2); see easycompress explain --help"),
    ],
)
def test_usage(refused: Callable[..., str], arguments: tuple[str, ...], text: str) -> None:
    assert refused(*arguments).startswith(text)


def test_settings_file(folder: Path, refused: Callable[..., str]) -> None:
    (folder / "easycompress.toml").write_text('tagret = "10x"')
    assert refused(*GOOD) == (
        "easycompress.toml: unknown setting tagret (did you mean target?); a setting is a flag without its dashes"
    )
    (folder / "easycompress.toml").write_text("target = 10x")
    assert refused(*GOOD).startswith("easycompress.toml: not valid TOML: ")


@pytest.mark.parametrize("command", ["plan", "compress"])
def test_plan_refuses_as_compress_does(refused: Callable[..., str], command: str) -> None:
    line = [part for part in changed(target="abc") if part not in ("-o", "out")]
    assert refused(command, *line[1:]).startswith("--target abc: not a target")


@pytest.mark.parametrize("option", ["--json", "--quiet"])
def test_refusals_look_the_same_for_machines(folder: Path, run: Run, option: str) -> None:
    ran = run(*changed(target="abc"), option)
    assert one_line(ran).startswith("--target abc: ")
    assert ran.out == ""
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("command", "text"), [(GOOD, "stopped; the same command with --resume goes on"), (("plan", *GOOD[1:-2]), "stopped")]
)
def test_ctrl_c(folder: Path, run: Run, command: tuple[str, ...], text: str) -> None:
    (folder / "net.py").write_text("def make(): raise KeyboardInterrupt")
    assert one_line(run(*command), 130) == text


@pytest.mark.usefixtures("folder")
def test_ctrl_c_that_a_library_disguises(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*_: object, **__: object) -> None:
        raise RuntimeError("failed to export") from KeyboardInterrupt()

    monkeypatch.setattr(torch.onnx, "export", export)
    assert one_line(run(*GOOD), 130) == "stopped; the same command with --resume goes on"


# ---------------------------------------------------------------- a real process: what else could write a line?


@pytest.mark.parametrize("case", ["pickle", "torchscript", "operator", "usage"])
def test_real_process(folder: Path, case: str) -> None:
    arguments, code, words = list(GOOD), 2, "--trust-pickle"
    if case == "pickle":
        torch.save(nn.Linear(2, 2), folder / "m.pt", pickle_protocol=4)  # torch warns of the protocol
    elif case == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch deprecates it; users still have the files
            torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(folder / "m.pt"))
        words = "TorchScript"
    elif case == "operator":
        (folder / "spectral.py").write_text(UNKNOWN_OPERATOR)
        arguments, code, words = list(changed(factory="spectral.py:make")), 3, "aten._linalg_eigh"
    else:
        arguments, words = ["compress", "--foo"], "No such option: --foo"
    done = subprocess.run(
        [sys.executable, "-c", "from easycompress.cli import main; main()", *arguments],
        cwd=folder, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("easycompress: ")
    assert words in done.stderr
    assert done.stdout == ""
    assert not (folder / "out").exists()
