"""Files are whole or not there."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easycompress.core.errors import BadInput
from easycompress.core.files import read_json, sha256, write_bytes, write_json, write_text

if TYPE_CHECKING:
    from pathlib import Path

WHERE = "free space there, or choose another folder with -o"
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def test_writes_replaces_and_leaves_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.bin"
    assert write_bytes(path, b"one") == path
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_text_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", "Größe ≤ 1")
    assert path.read_bytes() == "Größe ≤ 1".encode()


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_bytes(tmp_path / "a.bin", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput) as caught:
        write_bytes(path, b"new")
    assert str(caught.value) == f"{path}: can't be written (No space left on device); {WHERE}"
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match=r"file/a: can't be written \(.+\); choose another folder with -o"):
        write_text(tmp_path / "file" / "a", "text")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(ROOT, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(BadInput, match="can't be written"):
            write_text(tmp_path / "a", "text")
    finally:
        tmp_path.chmod(0o700)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(JSON)
def test_json_comes_back(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = write_json(tmp_path_factory.mktemp("json") / "a.json", value)
    assert read_json(path) == value
    assert path.read_bytes().endswith(b"\n")


def test_json_keeps_the_order_of_keys(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"z": 1, "a": 2})
    assert list(read_json(path)) == ["z", "a"]
    assert path.read_text().index('"z"') < path.read_text().index('"a"')


def test_what_is_not_json_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_json_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(BadInput, match=r"a\.json: can't be read \(No such file or directory\)"):
        read_json(path)
    for content in (b"{", b"\xff\xfe\x00", b""):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"a\.json: not valid JSON \(.+\)") as caught:
            read_json(path)
        assert "\n" not in str(caught.value)


def test_sha256_reads_past_its_chunk(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000  # over a megabyte
    path = write_bytes(tmp_path / "a", data)
    assert sha256(path) == hashlib.sha256(data).hexdigest()
    assert sha256(write_bytes(path, b"")) == hashlib.sha256().hexdigest()
