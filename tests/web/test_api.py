from __future__ import annotations

import io
import json
import os
import time
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from easycompress.web.files import listed
from easycompress.web.store import Store, events, mend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.testclient import TestClient

    from easycompress.web.settings import Settings

    Until = Callable[..., dict[str, Any]]

MODEL = {"model": "net.onnx", "data": "data.npz"}

GOAL = {"objective": "size", "target": "10x", "max_drop": "1%", "budget": "none"}


def told(client: TestClient, number: str, **headers: str) -> list[dict[str, Any]]:
    """Return the events of a resting run, each with its id."""
    text = client.get(f"/api/runs/{number}/events", headers=headers).text
    assert text.rstrip().endswith("event: rest\ndata: {}")
    parts = [part.splitlines() for part in text.split("\n\n") if part.startswith("id: ")]
    return [{"id": lines[0][4:], **json.loads(lines[1][6:])} for lines in parts]


def test_from_a_model_to_files(client: TestClient, planned: str, rested: Until) -> None:
    run = rested(client, planned)
    assert (run["stage"], run["state"]) == ("plan", "done")
    assert run["look"]["quality"] == 97.0
    assert run["plan"]["decisions"][0]["rule"] == "D1"
    client.post(f"/api/runs/{planned}/start", json={})
    run = rested(client, planned)
    assert (run["stage"], run["state"], run["result"]["verdict"]) == ("compress", "done", "met")
    assert [each["name"] for each in run["files"]] == ["model.onnx", "report.html", "report.json"]
    answer = client.get(f"/api/runs/{planned}/files/model.onnx")
    assert answer.content == b"onnx" * 100
    assert answer.headers["content-disposition"] == 'attachment; filename="model.onnx"'
    archive = zipfile.ZipFile(io.BytesIO(client.get(f"/api/runs/{planned}/files.zip").content))
    assert archive.testzip() is None
    assert archive.read("model.onnx") == b"onnx" * 100
    report = client.get(f"/api/runs/{planned}/report")
    assert report.headers["content-security-policy"].startswith("sandbox allow-scripts")
    line = client.get("/api/runs").json()[0]
    assert (line["name"], line["result"]["ratio"]) == ("net.onnx", 10.0)


def test_downloads_stay_in_the_result(client: TestClient, planned: str, settings: Settings, rested: Until) -> None:
    client.post(f"/api/runs/{planned}/start", json={})
    rested(client, planned)
    place = settings.folder / "runs" / planned
    (place / "out" / "leak.txt").symlink_to("/etc/hostname")
    (place / "out" / "folder").symlink_to("/etc")
    (place / "out" / "pretrained").mkdir()
    (place / "out" / "pretrained" / "config.json").write_text("{}")
    assert set(listed(place)) == {"model.onnx", "report.html", "report.json", "pretrained/config.json"}
    assert client.get(f"/api/runs/{planned}/files/pretrained/config.json").text == "{}"
    for name in ("leak.txt", "folder/hostname", "..%2Frun.json", "%2e%2e/run.json", "../run.json", "journal/epochs",
                 "%2Fetc%2Fhostname", "....//run.json", "model.onnx%00"):  # fmt: skip
        assert client.get(f"/api/runs/{planned}/files/{name}").status_code in (400, 404), name
    for number in ("..", "%2e%2e", "x", "../uploads", "20200101-000000-abcdef"):
        assert client.get(f"/api/runs/{number}").status_code in (404, 405), number
        assert client.get(f"/api/runs/{number}/files/run.json").status_code in (400, 404), number


def test_events_are_told_again_from_where_a_reader_left(client: TestClient, planned: str, rested: Until) -> None:
    client.post(f"/api/runs/{planned}/start", json={})
    rested(client, planned)
    lines = told(client, planned)
    kinds = [line["kind"] for line in lines]
    assert kinds.count("epoch-done") == 3
    assert kinds.index("attempt-begun") < kinds.index("epoch-done") < kinds.index("attempt-done")
    first = next(line for line in lines if line["kind"] == "epoch-done")
    assert first["loss"] is None  # what is no number is none in JSON
    for place in (0, 4, len(lines) - 1):
        after = told(client, planned, **{"last-event-id": lines[place]["id"]})
        assert after == lines[place + 1 :]
    assert told(client, planned, **{"last-event-id": "999999999"}) == []
    assert told(client, planned, **{"last-event-id": "nonsense"}) == lines


def test_a_line_cut_short_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"kind": "say"}\n{"kind": "no')
    assert [text for _, text in events(path, 0)] == ['{"kind": "say"}']
    mend(path)
    with path.open("ab") as file:
        file.write(b'{"kind": "now"}\n')
    assert [text for _, text in events(path, 0)] == ['{"kind": "say"}', '{"kind": "now"}']
    mend(tmp_path / "none")
    assert list(events(tmp_path / "none", 0)) == []


def test_jobs_run_one_at_a_time(
    client: TestClient, planned: str, settings: Settings, until: Until, rested: Until
) -> None:
    client.post(f"/api/runs/{planned}/plan", json={**GOAL, "budget": "1h"})
    rested(client, planned)
    client.post(f"/api/runs/{planned}/start", json={})
    until(client, planned, lambda _: (settings.folder / "runs" / planned / "out" / "journal" / "epochs").exists())
    second = client.post("/api/runs", json=MODEL).json()["id"]
    third = client.post("/api/runs", json=MODEL).json()["id"]
    time.sleep(0.4)
    states = [client.get(f"/api/runs/{each}").json() for each in (planned, second, third)]
    assert [run["state"] for run in states] == ["running", "queued", "queued"]
    assert [run["ahead"] for run in states] == [0, 1, 2]
    assert client.post(f"/api/runs/{planned}/start", json={}).status_code == 400
    assert client.delete(f"/api/runs/{planned}").status_code == 400
    assert client.post(f"/api/runs/{third}/cancel").json()["state"] == "cancelled"
    client.post(f"/api/runs/{planned}/cancel")
    run = rested(client, planned)
    assert (run["state"], run["resumable"]) == ("cancelled", True)
    assert rested(client, second)["state"] == "done"
    epochs = settings.folder / "runs" / planned / "out" / "journal" / "epochs"
    before = int(epochs.read_text())
    client.post(f"/api/runs/{planned}/resume")
    until(client, planned, lambda _: int(epochs.read_text() or 0) > before)
    client.post(f"/api/runs/{planned}/cancel")
    rested(client, planned)
    assert any("resumed after epoch" in line.get("text", "") for line in told(client, planned))


def test_an_edited_plan_becomes_a_recipe(client: TestClient, planned: str, rested: Until) -> None:
    steps = [{"place": 1, "settings": {"kind": "os", "temperature": 4, "epochs": 7, "mode": "budget"}}]
    answer = client.post(f"/api/runs/{planned}/start", json={"steps": steps})
    assert answer.status_code == 422
    assert answer.json()["fields"] == {"1.kind": "must be distillation"}
    del steps[0]["settings"]["kind"]  # type: ignore[attr-defined]
    assert client.post(f"/api/runs/{planned}/start", json={"steps": steps}).status_code == 200
    run = rested(client, planned)
    assert run["steps"] == [{"temperature": 4, "epochs": 7, "mode": "budget", "kind": "distillation"}]
    assert run["edited"]


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ([], 400),
        ("all", 400),
        ([{"place": 9, "settings": {}}], 400),
        ([{"place": "0", "settings": {}}], 400),
        ([{"place": 0, "settings": {"temperature": 0}}], 422),
        ([{"place": 0, "settings": {"epochs": "ten"}}], 422),
    ],
)
def test_senseless_steps_are_refused(client: TestClient, planned: str, steps: object, status: int) -> None:
    answer = client.post(f"/api/runs/{planned}/start", json={"steps": steps})
    assert answer.status_code == status
    assert client.get(f"/api/runs/{planned}").json()["stage"] == "plan"


def test_a_failure_is_told_at_its_field(client: TestClient, rested: Until) -> None:
    number = client.post("/api/runs", json={"model": "bad.onnx"}).json()["id"]
    run = rested(client, number)
    assert run["state"] == "failed"
    assert run["failure"]["field"] == "mean"
    assert run["failure"]["code"] == 2
    assert run["failure"]["line"].startswith("--mean (0.5,)")
    assert client.post(f"/api/runs/{number}/plan", json=GOAL).status_code == 400
    assert client.post(f"/api/runs/{number}/model", json=MODEL).status_code == 200
    assert rested(client, number)["state"] == "done"


def test_code_that_ends_the_process_is_a_failure(client: TestClient, work: Path, rested: Until) -> None:
    (work / "exits.onnx").write_bytes(b"\x08")
    run = rested(client, client.post("/api/runs", json={"model": "exits.onnx"}).json()["id"])
    assert run["state"] == "failed"
    assert "SystemExit" in run["failure"]["line"]
    assert "SystemExit" in run["output"]


def test_another_goal_is_another_run_and_both_share_an_upload(
    client: TestClient, settings: Settings, rested: Until
) -> None:
    spec = client.post("/api/uploads?name=../net.onnx", content=b"\x08 a graph").json()["spec"]
    number = client.post("/api/runs", json={"model": spec}).json()["id"]
    assert rested(client, number)["name"] == "net.onnx"
    copied = client.post(f"/api/runs/{number}/copy").json()
    assert (copied["state"], copied["look"]["quality"]) == ("done", 97.0)
    folder = settings.folder / "uploads"
    assert client.delete(f"/api/runs/{number}").status_code == 200
    assert client.get(f"/api/runs/{number}").status_code == 404
    assert len(list(folder.iterdir())) == 1
    client.delete(f"/api/runs/{copied['id']}")
    assert list(folder.iterdir()) == []


def test_uploads_over_the_wire(client: TestClient, settings: Settings) -> None:
    answer = client.post("/api/uploads?name=net.onnx", content=b"\x08" * 1001)
    assert answer.status_code == 413
    assert "--max-upload" in answer.json()["error"]
    assert client.post("/api/uploads?name=net.onnx", content=iter([b"\x08" * 600] * 2)).status_code == 413
    answer = client.post("/api/uploads?name=net.pt", content=b"\x80\x04")
    assert answer.status_code == 400
    assert "a pickle can run any code" in answer.json()["error"]
    assert list((settings.folder / "uploads").iterdir()) == []


def test_a_run_that_another_version_wrote_is_not_shown(settings: Settings) -> None:
    store = Store(settings.folder / "runs")
    run = store.new({}, {})
    (store.place(run.id) / "run.json").write_text('{"id": 3}')
    (settings.folder / "runs" / "notes").mkdir()
    assert store.all() == []


def test_a_kill_of_the_job_is_told(
    client: TestClient, planned: str, settings: Settings, until: Until, rested: Until
) -> None:
    client.post(f"/api/runs/{planned}/plan", json={**GOAL, "budget": "1h"})
    rested(client, planned)
    client.post(f"/api/runs/{planned}/start", json={})
    lock = settings.folder / "runs" / planned / "job.lock"
    epochs = settings.folder / "runs" / planned / "out" / "journal" / "epochs"
    until(client, planned, lambda _: epochs.exists())
    os.kill(int(lock.read_text()), 9)
    run = rested(client, planned)
    assert run["state"] == "failed"
    assert "ended from outside" in run["failure"]["line"]
    assert run["resumable"]
