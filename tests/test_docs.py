"""Every block of the docs and the README is run as it stands, in a small folder and in this process.

A line above a block says what it is: `<!-- run -->` commands or Python to run, `<!-- file: NAME -->` a file to write,
`<!-- parsed -->` commands that are only parsed, and that NOT_RUN lists with the reason. Each page has a folder of its
own, in which its blocks go one after the other. Trainings are cut to an epoch: whether goals are met isn't asked here.
"""

from __future__ import annotations

import functools
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import typer
import yaml
from safetensors.torch import save_file
from torch import nn

from easycompress import cli
from easycompress.core.request import Request
from easycompress.executor import clock, limits, search
from easycompress.intake.models import make_module
from easycompress.measure import latency
from easycompress.pytest_plugin import easycompress_check  # noqa: F401 - one block asks for it
from easycompress.selection.recipe import read_recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]

BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)

PICTURES = ("mermaid",)

NOT_RUN = {
    "make demo": "makes an environment; tests/cli/test_commands.py runs the demo",
    "make test": "is what runs this",
    "easycompress compress weights.safetensors --factory net.py:make_model --data cifar10_folder "
    "--mean 0.4914,0.4822,0.4465 --std 0.2470,0.2435,0.2616 "
    "--objective size --target 10x --max-drop 1% --budget 15min -o out": "trains 15 minutes on CIFAR-10",
    "easycompress compress my-classifier --data sst2 --columns text,label "
    "--objective size --target 3.5x --max-drop 1% --budget none -o out": "test_hugging_face_end_to_end.py does it",
    "easycompress check models/model-easycompress --baseline models/baseline/report.json --data data/data.npz "
    "--max-drop 0.5% --max-size 1.02x --max-latency-ratio 1.15 --junit check.xml": "a workflow of GitHub's machines",
    "easycompress check models/model-easycompress --baseline models/baseline/report.json --max-latency-ratio none": "a "
    "hook that git starts",
    "easycompress explore weights.safetensors --factory net.py:make_model --data data.npz --workers 2 --figures "
    "-o curves": "measures 120 points; tests/exploration do it",
    "easycompress explore weights.safetensors --factory net.py:make_model --data data.npz --max-drop 1% --pick best "
    "-o curves": "needs those points; tests/exploration do it",
    "easycompress compress weights.safetensors --objective size --target 20x --max-drop 1% --budget 60min --search 20 "
    "-o searched": "takes an hour, and Optuna; tests/executor/test_tuning.py does it",
    "easycompress compress weights.safetensors --factory net.py:make_model --data data.npz "
    "--objective size --target 10x --max-drop 1%": "is for a launcher; tests/training/test_parallel.py has two",
    "easycompress explore weights.safetensors --factory net.py:make_model --data data.npz --ray HEAD:6379 --workers 8 "
    "-o shared/curves": "wants a cluster; tests/exploration/test_cluster.py plays one",
    "easycompress compress weights.safetensors --factory net.py:make_model --data data.npz "
    "--objective size --target 10x --max-drop 1% -o s3://bucket/run": "wants a store; tests/executor/test_storage.py",
    "easycompress serve --port 8000": "serves until it is stopped; tests/web do it",
}
"""Commands that are only parsed, with the reason."""

FINE = {"compress": (0, 1, 4), "explore": (0, 1, 4), "check": (0, 1)}
"""Exit codes that are no failure of the documentation; others: 0. A goal may be missed after so little training."""

FACTORY = """\
from torch import nn


def make_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line that it begins on, its language, and what is said above it."""

    page: Path
    line: int
    kind: str
    mark: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The command lines: those behind a prompt, every line where there is none; of a workflow all in it."""
        if self.kind == "yaml":
            found = [text.strip() for text in strings(yaml.safe_load(self.text))]
            return [text for text in found if text.startswith("easycompress ") and " --" in text]
        lines = self.text.replace("\\\n", " ").splitlines()
        prompted = [line.split("$ ", 1)[1] for line in lines if re.match(r"(in \w+: )?\$ ", line)]
        return [" ".join(line.split("  #")[0].split()) for line in prompted or lines if line.strip()]


def strings(value: object) -> Iterator[str]:
    """Yield every text in a YAML file's content."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings(inner)


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text[: found.start()].count("\n") + 1, found["kind"], found["mark"] or "", found["text"])
        for found in BLOCK.finditer(text)
    ]


PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
ALL = [block for page in PAGES for block in blocks(page)]


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    """Images of 8x8 whose class is told by a bright pixel in noise."""
    generator = np.random.default_rng(0)
    made = {}
    for name, count in {"train": 200, "val": 200, "test": 200}.items():
        labels = generator.integers(0, 10, count)
        images = generator.normal(0, 0.2, (count, 1, 8, 8)).astype(np.float32)
        images.reshape(count, 64)[np.arange(count), labels * 6] += 1.5
        made[f"x_{name}"], made[f"y_{name}"] = images, labels
    return made


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small trained net under every name that the pages call theirs."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "model.py").write_text(FACTORY)
    data = arrays()
    np.savez(folder / "data.npz", **data)
    torch.manual_seed(0)
    model = make_module("model.py:make_model", folder)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(40):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(torch.from_numpy(data["x_train"])), torch.from_numpy(data["y_train"]))
        loss.backward()  # type: ignore[no-untyped-call] # torch has no types for it
        optimizer.step()
    save_file(model.state_dict(), folder / "weights.safetensors")
    torch.save(model.state_dict(), folder / "model.pt")
    (folder / "easycompress.toml").write_text('factory = "model.py:make_model"\ndata = "data.npz"\n')
    return folder


@pytest.fixture(scope="module", autouse=True)
def _hurried() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "PATIENCE", 0.0)
        patch.setattr(latency, "ROUNDS", 1)
        patch.setattr(latency, "BLOCKS", 1)
        patch.setattr(clock, "MOST_EPOCHS", 1)
        for module in (limits, search):
            patch.setattr(module, "MOST_ATTEMPTS", 1)
        patch.setattr(limits, "LEAST_ATTEMPTS", 1)
        patch.setattr(limits, "LEAST_PROBES", 1)
        patch.setattr(limits, "PROBING_SHARE", 0.0)
        yield


COPIES = {
    "reading_the_report": {"small": "small"},
    "ci": {
        "small": "model-easycompress baseline models/baseline",
        "small/model.onnx": "model.onnx models/model.onnx",
        "data.npz": "data.npz data/data.npz",
    },
}
"""What pages take from the tutorial's folder, and the names that they have for it."""


class Walker:
    """Runs pages, each once, in a folder of its own."""

    def __init__(self, prepared: Path, root: Path, fixture: Callable[[str], Any]) -> None:
        self.prepared, self.root, self.fixture = prepared, root, fixture
        self.done: dict[str, Path] = {}

    def walk(self, page: Path) -> Path:
        """Return the folder of a page whose blocks were run."""
        if page.stem not in self.done:
            self.done[page.stem] = folder = self.root / page.stem
            folder.mkdir()
            if page.stem != "tutorial":  # which begins with nothing
                shutil.copytree(self.prepared, folder, dirs_exist_ok=True)
            for source, targets in COPIES.get(page.stem, {}).items():
                origin = self.walk(ROOT / "docs/tutorial.md") / source
                for target in targets.split():
                    (folder / target).parent.mkdir(parents=True, exist_ok=True)
                    (shutil.copytree if origin.is_dir() else shutil.copy)(origin, folder / target)
            self._run(page, folder)
        return self.done[page.stem]

    def _run(self, page: Path, folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.syspath_prepend(str(folder))
            patch.delitem(sys.modules, "model", raising=False)
            names = {"__name__": page.stem} | ({} if page.stem == "tutorial" else given(folder))
            ran: set[str] = set()
            for block in blocks(page):
                if block.mark.startswith("file: "):
                    target = folder / block.mark.removeprefix("file: ")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_text(block.text)
                elif block.mark == "run" and block.kind == "python":
                    exec(compile("\n" * block.line + block.text, page.name, "exec"), names)  # noqa: S102 - our own pages
                    for name in [name for name in names if name.startswith("test_")]:
                        names.pop(name)(self.fixture("easycompress_check"))
                elif block.mark == "run":
                    for command in block.commands:
                        if command not in ran:  # the README names one command and shows what it prints
                            run_command(command)
                            ran.add(command)
            sys.modules.pop("model", None)


def given(folder: Path) -> dict[str, Any]:
    """Return what blocks of Python take for granted: a model, what makes it, and its data."""
    data = {name: torch.from_numpy(values) for name, values in np.load(folder / "data.npz").items()}
    make = functools.partial(make_module, "model.py:make_model", folder)
    model = make()
    model.load_state_dict(torch.load(folder / "model.pt"))
    pairs = {name: (data[f"x_{name}"], data[f"y_{name}"]) for name in ("train", "val", "test")}
    inputs, targets = pairs["train"]
    return {"model": model, "make_model": make, "x": inputs, "y": targets, **pairs}


def run_command(line: str) -> None:
    _, name, *rest = shlex.split(line)
    code = cli._run([name, *rest])
    assert code in FINE.get(name, (0,)), f"{line}: exit {code}"


@pytest.fixture(scope="module")
def walker(prepared: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Walker:
    return Walker(prepared, tmp_path_factory.mktemp("pages"), request.getfixturevalue)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.mark == "run" for b in blocks(page))], ids=lambda p: p.stem
)
def test_every_block_runs(page: Path, walker: Walker) -> None:
    walker.walk(page)


@pytest.mark.parametrize("block", ALL, ids=lambda block: f"{block.page.stem}:{block.line}")
def test_no_block_is_passed_over(block: Block) -> None:
    """A picture holds no command; anything else is run, written, or parsed and listed."""
    if block.kind in PICTURES:
        assert "easycompress " not in block.text
        return
    assert block.mark in ("run", "parsed") or block.mark.startswith("file: "), "say above it what it is: see this test"
    if block.mark == "parsed":
        assert block.commands
        assert set(block.commands) <= NOT_RUN.keys()
    if block.mark == "run" and block.kind != "python":
        assert block.commands
        assert all(command.startswith("easycompress ") for command in block.commands), block.commands


def test_what_is_not_run_is_in_the_pages() -> None:
    assert {command for block in ALL if block.mark == "parsed" for command in block.commands} == NOT_RUN.keys()


@pytest.mark.parametrize("line", NOT_RUN)
def test_what_is_not_run_is_understood(line: str) -> None:
    program, name, *rest = shlex.split(line)
    if program == "make":
        assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return
    group: Any = typer.main.get_command(cli.app)
    context = group.commands[name].make_context(name, rest)
    assert context.params


def test_the_parser_refuses_what_is_no_flag() -> None:
    group: Any = typer.main.get_command(cli.app)
    with pytest.raises(cli.UsageError):
        group.commands["compress"].make_context("compress", ["model.pt", "--targte", "10x"])


@pytest.mark.parametrize(
    "block", [b for b in ALL if b.mark.startswith("file: ")], ids=lambda b: f"{b.page.stem}:{b.line}"
)
def test_files_are_what_their_names_say(block: Block, tmp_path: Path) -> None:
    path = tmp_path / Path(block.mark.removeprefix("file: ")).name
    path.write_text(block.text)
    if path.suffix == ".toml":
        assert tomllib.loads(block.text).keys() <= Request.model_fields.keys()
    elif path.suffix == ".yaml":
        assert read_recipe(path).steps
    else:
        compile(block.text, path.name, "exec")


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_new_pages_are_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(docs/(\w+)\.md\)", PAGES[0].read_text(encoding="utf-8")))
    assert {"tutorial", "reading_the_report", "recipes"} <= linked
