"""Nothing speaks to the network unless a name of the Hub is given, and nobody is told anything."""

from __future__ import annotations

import ast
import contextlib
import functools
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import huggingface_hub.constants
import torch
from torch import nn

import easycompress
from easycompress.intake.hf_checks import OFFLINE, SILENT, without_network, without_telemetry

if TYPE_CHECKING:
    import pytest

HOUSE = Path(easycompress.__file__).parent

SPEAKING = {"socket", "http", "urllib", "ftplib", "smtplib", "requests", "httpx", "aiohttp", "urllib3", "websockets",
            "huggingface_hub", "xmlrpc", "telnetlib", "ssl", "asyncio"}  # fmt: skip
"""Libraries that reach the network."""

LISTENING = {("guard.py", "http"), ("guard.py", "urllib"), ("server.py", "socket")}
"""What easycompress serve needs: to read cookies and addresses, and to listen."""

RECIPE = "steps:\n- kind: weight-only\n  bits: 8\n  strength: null\n"


Found = ast.Call | ast.Import | ast.ImportFrom


@functools.cache
def found() -> list[tuple[str, Found]]:
    """Every call and import, with the file's name."""
    return [
        (path.name, node)
        for path in HOUSE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, Found)
    ]


def test_a_run_makes_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []

    def refuse(*given: Any, **_: Any) -> NoReturn:
        tried.append(given)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    (tmp_path / "r.yaml").write_text(RECIPE)
    inputs = torch.randn(300, 6)
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 2)).eval()
    samples = (inputs, model(inputs).argmax(1))
    result = easycompress.compress(
        model, train=samples, validation=samples, test=samples, recipe=str(tmp_path / "r.yaml"), out=tmp_path / "out",
        target="1.1x", max_drop="50%",
    )  # fmt: skip
    assert (result.out / "report.html").is_file()
    assert tried == []


def test_no_module_imports_what_reaches_the_network() -> None:
    imported = set()
    for file, node in found():
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        imported |= {(file, name.partition(".")[0]) for name in names}
    speaking = {(file, name) for file, name in imported if name in {*SPEAKING, "datasets"}}
    assert speaking == {("hub.py", "datasets"), *LISTENING}


def test_the_page_s_server_listens_and_never_calls_out() -> None:
    calling = {"connect", "connect_ex", "create_connection", "HTTPConnection", "sendto", "open_connection"}
    assert [
        file for file, node in found() if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in calling
    ] == []


def test_what_could_download_is_told_not_to() -> None:
    calls = [(file, node) for file, node in found() if isinstance(node, ast.Call)]
    pretrained = [node for _, node in calls if getattr(node.func, "attr", "") == "from_pretrained"]
    assert len(pretrained) >= 3
    for node in pretrained:
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert given.get("local_files_only") == "True", ast.unparse(node)
    keywords = [keyword for _, node in calls for keyword in node.keywords]
    assert not [k for k in keywords if k.arg in ("download", "trust_remote_code") and ast.unparse(k.value) != "False"]
    fetching = ("load_dataset", "load_url", "load_state_dict_from_url", "urlopen", "snapshot_download")
    loads = [file for file, node in calls if getattr(node.func, "attr", "") in fetching]
    assert loads == ["hub.py"]


def test_hugging_face_s_switches_are_on_inside_and_as_before_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OFFLINE, raising=False)
    monkeypatch.setenv(SILENT, "0")
    monkeypatch.setattr(huggingface_hub.constants, OFFLINE, False)
    with without_network():
        assert huggingface_hub.constants.is_offline_mode()
        assert os.environ[OFFLINE] == os.environ[SILENT] == "1"
    with contextlib.suppress(KeyError), without_network():
        raise KeyError
    assert not huggingface_hub.constants.is_offline_mode()
    assert OFFLINE not in os.environ
    with without_telemetry():
        assert not huggingface_hub.constants.is_offline_mode()
        assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY
    assert os.environ[SILENT] == "0"


def test_onnx_runtime_tells_nobody(tmp_path: Path) -> None:
    code = "from easycompress.artifact import session\nimport os\nprint(os.environ['ORT_DISABLE_TELEMETRY'])"
    place = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(HOUSE.parent)}
    ran = subprocess.run([sys.executable, "-c", code], env=place, capture_output=True, text=True, check=True)
    assert ran.stdout == "1\n"
    assert list(tmp_path.iterdir()) == []  # it keeps its device's number and its queue in ~/.cache/Microsoft
