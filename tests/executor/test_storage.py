"""OUT on a store: what is there after a run, after a kill, and what a resume on another machine makes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tiny import tiny

import easycompress as ec
from easycompress.core.errors import BadInput
from easycompress.core.files import write_text
from easycompress.core.progress import Silent
from easycompress.executor import storage
from easycompress.executor.storage import Store, is_remote, stored
from easycompress.exploration.asking import folder_of
from easycompress.measure import latency

if TYPE_CHECKING:
    from pathlib import Path

fsspec = pytest.importorskip("fsspec", reason="the optional extra `scale`")

RECIPE = """\
steps:
- {kind: structured-pruning, strength: 0.5, steps: 1}
- {kind: distillation, technique: soft, mode: budget}
"""


class Stops(Silent):
    """Presses Ctrl-C when a word is told."""

    def __init__(self, word: str) -> None:
        self.word = word

    def now(self, text: str) -> None:
        if self.word in text:
            raise KeyboardInterrupt


def compressed(out: str, recipe: Path, **keywords: Any) -> ec.Result:
    flags = {"target": "max", "max_drop": "30%", "budget": "3ep", "recipe": str(recipe), "threads": 1} | keywords
    return ec.compress(tiny().model(), **tiny().splits, out=out, **flags)


def names(url: str) -> set[str]:
    system, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return {path.removeprefix(root).lstrip("/") for path in system.find(root)}


def journal(url: str) -> Any:
    with fsspec.open(f"{url}/journal/journal.json") as file:
        return json.load(file)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "PATIENCE", 0.0)
        patch.setattr(latency, "ROUNDS", 1)
        yield path


@pytest.fixture(scope="module")
def plain(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run in a folder."""
    return compressed(str(tmp_path_factory.mktemp("plain") / "out"), recipe).out


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_run_that_was_stopped_goes_on_from_the_store_alone(
    kind: str, recipe: Path, plain: Path, tmp_path: Path
) -> None:
    url = f"memory://stopped-{tmp_path.name}/run" if kind == "memory" else f"file://{tmp_path}/store/run"
    with pytest.raises(KeyboardInterrupt):
        compressed(url, recipe, progress=Stops("epoch 2/"))
    assert journal(url)["state"] == "running"
    assert any(name.endswith(".checkpoint") for name in names(url)), "the epoch before"
    with pytest.raises(BadInput, match=f"{url}: an interrupted run is in there; go on with --resume"):
        compressed(url, recipe)
    result = compressed(url, recipe, resume=True)
    assert names(url) == {str(path.relative_to(plain)) for path in plain.rglob("*") if path.is_file()} - {
        "journal/lock"
    }
    assert (result.out / "model.onnx").read_bytes() == (plain / "model.onnx").read_bytes()
    assert journal(url)["state"] == "finished"
    assert result.url == url
    again = compressed(url, recipe, resume=True)
    assert again.report == result.report
    assert again.out.exists()


def test_somebody_elses_files_stay(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BadInput, match="holds other files"):
        compressed(f"file://{tmp_path}", recipe)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_refuses_before_it_begins_changes_nothing_in_the_store(tmp_path: Path) -> None:
    there = tmp_path / "store" / "journal"
    there.mkdir(parents=True)
    (there / "journal.json").write_text("{}")
    (there / "attempt 1.onnx").write_bytes(b"work")
    with (
        pytest.raises(BadInput, match=f"file://{tmp_path}/store"),
        stored(f"file://{tmp_path}/store", tmp_path / "here", resume=False),
    ):
        raise BadInput(f"{tmp_path}/here: no")
    assert (there / "attempt 1.onnx").read_bytes() == b"work"


def test_the_journal_is_the_last_to_come_and_what_is_gone_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    put = Store._put
    monkeypatch.setattr(Store, "_put", lambda store, name: (order.append(name), put(store, name)))
    here, url = tmp_path / "here", f"file://{tmp_path}/store"
    with stored(url, here, resume=False):
        write_text(here / "journal" / "a.checkpoint", "state")
        (here / "journal" / "b.onnx").write_bytes(b"not written by files")
        write_text(here / "journal" / "journal.json", "{}")
        assert order == ["journal/a.checkpoint", "journal/b.onnx", "journal/journal.json"]
        (here / "journal" / "a.checkpoint").unlink()
        write_text(here / "journal" / "journal.json", "{ }")
        assert names(url) == {"journal/b.onnx", "journal/journal.json"}


def test_a_store_that_fails_for_a_moment_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PAUSE", 0.0)
    store = Store(f"file://{tmp_path}/store", tmp_path / "here")
    failures = iter([OSError("reset"), TimeoutError("slow")])

    def flaky() -> str:
        for failure in failures:
            raise failure
        return "there"

    assert store._tried(flaky) == "there"
    with pytest.raises(
        BadInput, match=r"doesn't answer as it should \(OSError: gone\); the same command with --resume"
    ):
        store._tried(lambda: (_ for _ in ()).throw(OSError("gone")))


def test_what_fsspec_does_not_know_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"-o nowhere://x: .*; name a store that fsspec has a package for"):
        Store("nowhere://x", tmp_path)


def test_explore_wants_a_folder() -> None:
    with pytest.raises(BadInput, match="explore writes into folders"):
        folder_of("model.pt", "s3://bucket/run")


def test_only_urls_are_stores() -> None:
    assert is_remote("s3://bucket/run")
    assert not is_remote("out/run")
    assert not is_remote(None)
