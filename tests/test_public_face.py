from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import easycompress as ec
from easycompress import api
from easycompress.core.errors import BadInput, CannotCompress, EasyCompressError
from easycompress.core.request import Request
from easycompress.estimation.run import estimate
from easycompress.exploration.run import explore
from easycompress.regression.run import check

FACE = [
    "BadInput", "CannotCompress", "EasyCompressError", "Result", "check", "compress", "estimate", "explore", "load",
    "plan",
]  # fmt: skip


def test_the_face_is_curated() -> None:
    assert ec.__all__ == FACE
    assert set(FACE) <= set(dir(ec))


def test_every_name_leads_to_the_thing_itself() -> None:
    assert {name: getattr(ec, name) for name in FACE} == {
        "BadInput": BadInput,
        "CannotCompress": CannotCompress,
        "EasyCompressError": EasyCompressError,
        "Result": api.Result,
        "check": check,
        "compress": api.compress,
        "estimate": estimate,
        "explore": explore,
        "load": api.load,
        "plan": api.plan,
    }


def test_a_star_import_gives_exactly_that() -> None:
    names: dict[str, object] = {}
    exec("from easycompress import *", names)  # noqa: S102 - a star import can't stand in a function
    assert sorted(names.keys() - {"__builtins__"}) == FACE


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'easycompress' has no attribute 'quantise'"):
        ec.quantise  # noqa: B018 - the look-up itself is tested


def test_the_version_is_the_package_s() -> None:
    project = Path(ec.__file__).parents[1] / "pyproject.toml"
    assert re.findall(r'^version = "(.+)"$', project.read_text(), re.MULTILINE) == [ec.__version__]


def test_the_errors_form_one_tree() -> None:
    assert issubclass(ec.BadInput, ec.EasyCompressError)
    assert issubclass(ec.CannotCompress, ec.EasyCompressError)
    assert (ec.BadInput.exit_code, ec.CannotCompress.exit_code) == (2, 3)


def test_keywords_of_compress_are_no_flags_twice() -> None:
    named = {p.name for p in inspect.signature(ec.compress).parameters.values() if p.kind == p.KEYWORD_ONLY}
    assert named == {"train", "validation", "test", "out", "resume", "progress"}
    assert named & Request.model_fields.keys() == {"out"}


def test_types_are_shipped() -> None:
    assert (Path(ec.__file__).parent / "py.typed").exists()
