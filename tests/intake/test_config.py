"""easycompress.toml: every flag once, beside the model; what stands on the line wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from easycompress.core.errors import BadInput
from easycompress.core.request import Request
from easycompress.intake.config import NAME, find_config, make_request

SETTINGS = """
factory = "net.py:make"
data = "data.npz"
objective = "latency"
target = "4x"
max-drop = "2%"
budget = 0
mean = 0.5
std = [0.25]
batch = 8
certify = true
out = "result"
recipe = "recipe.yaml"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder beside the one that holds the model."""
    for name in ("work", "model"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def configured(folder: Path, text: str, where: str = "model") -> str:
    (folder / where / NAME).write_text(text)
    return str(folder / "model" / "m.pt")


def refused(model: str, **flags: Any) -> str:
    with pytest.raises(BadInput) as caught:
        make_request(model, flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_a_file_the_flags_are_all(folder: Path) -> None:
    request, base = make_request("m.pt", {"target": "10x", "max_drop": None, "mean": (0.5,)})
    assert request == Request(model="m.pt", target="10x", mean=(0.5,))
    assert base == folder / "work"


def test_beside_the_model(folder: Path) -> None:
    model = configured(folder, SETTINGS)
    assert find_config(model) == folder / "model" / NAME
    request, base = make_request(model, {})
    assert request == Request(
        model=model,
        factory="net.py:make",
        data="data.npz",
        objective="latency",
        target="4x",
        max_drop="2%",
        budget="0",
        mean=(0.5,),
        std=(0.25,),
        batch=8,
        certify=True,
        out=str(folder / "model" / "result"),
        recipe="recipe.yaml",
    )
    assert base == folder / "model"  # what the names above are relative to


def test_in_the_working_folder(folder: Path) -> None:
    model = configured(folder, 'data = "digits"\ntarget = "3x"', "work")
    request, base = make_request(model, {})
    assert (request.data, request.target, base) == ("digits", "3x", folder / "work")


def test_the_one_beside_the_model_comes_first(folder: Path) -> None:
    configured(folder, 'target = "3x"', "work")
    assert make_request(configured(folder, 'target = "5x"'), {})[0].target == "5x"


def test_flags_on_the_line_win(folder: Path) -> None:
    model = configured(folder, SETTINGS)
    flags = {"objective": "size", "target": "9x", "batch": 2, "certify": False, "mean": (0.1, 0.2), "factory": None}
    request, _ = make_request(model, flags)
    assert (request.objective, request.target, request.batch, request.mean) == ("size", "9x", 2, (0.1, 0.2))
    assert request.certify is False
    assert request.factory == "net.py:make"  # not given on the line
    assert request.budget == "0"


def test_a_floor_on_the_line_replaces_the_other_kind_in_the_file(folder: Path) -> None:
    request, _ = make_request(configured(folder, 'max_drop = "1%"'), {"min_quality": "97%"})
    assert (request.max_drop, request.min_quality) == (None, "97%")
    request, _ = make_request(configured(folder, 'min_quality = "97%"'), {"max_drop": "1%"})
    assert (request.max_drop, request.min_quality) == ("1%", None)


def test_dashes_and_underscores_and_numbers(folder: Path) -> None:
    request, _ = make_request(
        configured(folder, 'max_drop = 0.5\ntrust-pickle = false\nbudget = "5min"\nmodel = "x"'), {}
    )
    assert (request.max_drop, request.trust_pickle, request.budget) == ("0.5", False, "5min")
    assert request.model.endswith("m.pt")


# ---------------------------------------------------------------- relative names


def test_names_on_the_line_are_relative_to_the_working_folder(folder: Path) -> None:
    model = configured(folder, SETTINGS)
    work = folder / "work"
    (work / "images").mkdir()
    request, _ = make_request(
        model, {"factory": "mine.py:make", "data": "mine.npz", "recipe": "mine.yaml", "metric": "mine.py:score"}
    )
    assert request.factory == f"{work}/mine.py:make"  # there or not: the error must name the right folder
    assert request.data == f"{work}/mine.npz"
    assert request.recipe == f"{work}/mine.yaml"
    assert request.metric == f"{work}/mine.py:score"
    for data, wanted in {
        "images": f"{work}/images",
        "./images": f"{work}/images",
        "../model": f"{folder}/model",
        "mine.py:load": f"{work}/mine.py:load",
        f"{folder}/d.npz": f"{folder}/d.npz",
    }.items():
        assert make_request(model, {"data": data})[0].data == wanted


def test_names_of_built_in_things_stay_whatever_lies_in_the_folder(folder: Path) -> None:
    model = configured(folder, "")
    for name in ("digits", "accuracy", "flip", "mse", "models"):
        (folder / "work" / name).mkdir()
    request, _ = make_request(
        model, {"data": "digits", "metric": "accuracy", "augment": "flip", "loss": "mse", "factory": "models:make"}
    )
    assert (request.data, request.metric, request.augment, request.loss) == ("digits", "accuracy", "flip", "mse")
    assert request.factory == "models:make"
    assert make_request(model, {"factory": "torchvision:resnet18"})[0].factory == "torchvision:resnet18"


def test_a_home_folder_is_the_users(folder: Path) -> None:
    request, _ = make_request(configured(folder, ""), {"factory": "~/net.py:make"})
    assert request.factory == f"{Path.home()}/net.py:make"


def test_an_absolute_output_folder_stays(folder: Path) -> None:
    request, _ = make_request(configured(folder, f'out = "{folder}/elsewhere"'), {})
    assert request.out == f"{folder}/elsewhere"


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('tagret = "10x"', "unknown setting tagret (did you mean target?); a setting is a flag without its dashes"),
        ("zzz = 1\nqqq = 2", "unknown setting qqq, zzz; a setting is a flag without its dashes"),
        ('[tool]\ntarget = "2x"', "unknown setting tool; a setting is a flag without its dashes"),
    ],
)
def test_unknown_settings(folder: Path, text: str, message: str) -> None:
    model = configured(folder, text)
    assert refused(model) == f"{folder}/model/{NAME}: {message}"


@pytest.mark.parametrize("text", ["target = 10x", "= 3", 'target = "10x\nbatch = 1', "target\n"])
def test_what_is_no_toml(folder: Path, text: str) -> None:
    message = refused(configured(folder, text))
    assert message.startswith(f"{folder}/model/{NAME}: not valid TOML: ")
    assert message.endswith('; write lines such as data = "digits"')
    assert "line 1" in message


def test_bytes_that_are_no_text(folder: Path) -> None:
    model = configured(folder, "")
    (folder / "model" / NAME).write_bytes(b'data = "\xff\xfe"')
    assert "not valid TOML" in refused(model)


def test_the_mark_that_windows_editors_leave_is_no_fault(folder: Path) -> None:
    model = configured(folder, "")
    (folder / "model" / NAME).write_bytes(b'\xef\xbb\xbftarget = "2x"')
    assert make_request(model, {})[0].target == "2x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('backend = "tpu"', "backend tpu: input should be 'cpu' or 'gpu'"),
        ('batch = "many"', "batch many: input should be a valid integer, unable to parse string as an integer"),
        ("batch = 0", "batch 0: input should be greater than or equal to 1"),
        ("data = 3", "data 3: input should be a valid string"),
        ("out = 3", "out 3: input should be a valid string"),
        ('mean = ["a"]', "mean a: input should be a valid number, unable to parse string as a number"),
    ],
)
def test_bad_values_name_the_file(folder: Path, text: str, message: str) -> None:
    assert refused(configured(folder, text)) == f"{folder}/model/{NAME}: {message}"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"backend": "tpu"}, "--backend tpu: input should be 'cpu' or 'gpu'"),
        ({"batch": 0}, "--batch 0: input should be greater than or equal to 1"),
        ({"threads": -2}, "--threads -2: input should be greater than or equal to 0"),
        ({"seed": -1}, "--seed -1: input should be greater than or equal to 0"),
        ({"mean": ("a",)}, "--mean a: input should be a valid number, unable to parse string as a number"),
        ({"max_dorp": "1%"}, "--max-dorp: unknown (did you mean max_drop?); see easycompress compress --help"),
        ({"qqq": 1}, "--qqq: unknown; see easycompress compress --help"),
    ],
)
def test_bad_values_name_the_flag(folder: Path, flags: dict[str, Any], message: str) -> None:
    assert refused(configured(folder, 'backend = "cpu"\nbatch = 4'), **flags) == message
    assert refused(str(folder / "m.pt"), **flags) == message
