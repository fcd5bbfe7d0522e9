"""The application: addresses in, JSON, files and events out. Needs the extra `web`; only web.server imports it."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
from fastapi import Body, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

from easycompress.core.errors import BadInput
from easycompress.web.fields import GOAL_FIELDS, Fields, Wrong
from easycompress.web.files import archive, one
from easycompress.web.guard import UPLOADS, Guard
from easycompress.web.places import places
from easycompress.web.queue import Queue
from easycompress.web.runs import Runs
from easycompress.web.show import short, whole
from easycompress.web.store import EVENTS, Store, Unknown, events
from easycompress.web.uploads import PREFIX, TooLarge, Uploads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from easycompress.web.settings import Settings

STATIC = Path(__file__).parent / "static"

Given = Annotated[dict[str, Any], Body()]

GLANCE, HEARTBEAT = 0.25, 15.0
"""Seconds between two looks for new events, and between two signs of life on a silent stream."""

KEPT_UPLOADS = 86_400.0
"""Seconds after which an upload that no run uses is removed."""

REPORT_POLICY = (
    "sandbox allow-scripts allow-popups; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:"
)
"""Content-Security-Policy of report.html: a page of its own, from which this server can't be asked for anything."""


class Parts:
    """What the addresses work with."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        for name in ("runs", "uploads"):
            (settings.folder / name).mkdir(parents=True, exist_ok=True)
        self.store = Store(settings.folder / "runs")
        self.uploads = Uploads(settings.folder / "uploads", settings.max_upload)
        self.fields = Fields(settings, self.uploads)
        self.queue = Queue(self.store, settings.work)
        self.runs = Runs(self.store, self.uploads, self.fields, self.queue)
        self.closing = False

    def used(self) -> set[str]:
        """Return the uploads that runs use."""
        values = [value for run in self.store.all() for value in run.given.values()]
        return {value for value in values if isinstance(value, str) and value.startswith(PREFIX)}


def make_app(settings: Settings) -> FastAPI:
    """Return the application of one server, its queue started with it and ended with it."""
    parts = Parts(settings)

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        parts.uploads.sweep(parts.used(), time.time(), KEPT_UPLOADS)
        parts.queue.start()
        yield
        parts.closing = True
        await anyio.to_thread.run_sync(parts.queue.close)

    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.parts = parts
    _add_errors(app)
    _add_page(app, parts)
    _add_runs(app, parts)
    _add_files(app, parts)
    app.add_middleware(Guard, settings=settings)
    return app


def _add_errors(app: FastAPI) -> None:
    def wrong(_: Request, error: Exception) -> JSONResponse:
        lines = error.lines if isinstance(error, Wrong) else {}
        return JSONResponse({"error": "Some fields need another look.", "fields": lines}, 422)

    def bad(_: Request, error: Exception) -> JSONResponse:
        status = 404 if isinstance(error, Unknown) else 413 if isinstance(error, TooLarge) else 400
        return JSONResponse({"error": str(error)}, status)

    app.add_exception_handler(Wrong, wrong)
    app.add_exception_handler(BadInput, bad)


def _add_page(app: FastAPI, parts: Parts) -> None:
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/api/server")
    def server() -> dict[str, Any]:
        settings = parts.settings
        return {
            "work": str(settings.work),
            "root": None if settings.root is None else str(settings.root),
            "folder": str(settings.folder),
            "max_upload": settings.max_upload,
        }

    @app.get("/api/places")
    def found() -> dict[str, list[str]]:
        return places(parts.settings)

    @app.post(UPLOADS, status_code=201)
    async def upload(request: Request, name: str) -> dict[str, str]:
        declared = request.headers.get("content-length", "")
        taken = await parts.uploads.take(name, int(declared) if declared.isdigit() else None, request.stream())
        return {"spec": taken.spec, "name": taken.path.name}


def _add_runs(app: FastAPI, parts: Parts) -> None:
    store, queue, runs = parts.store, parts.queue, parts.runs
    _add_verbs(app, parts)

    @app.get("/api/runs")
    def history() -> list[dict[str, Any]]:
        return [short(run, store, queue) for run in store.all()]

    @app.post("/api/runs", status_code=201)
    def create(given: Given) -> dict[str, Any]:
        return whole(runs.create(given), store, queue)

    @app.get("/api/runs/{number}")
    def run(number: str) -> dict[str, Any]:
        return whole(store.get(number), store, queue)

    @app.delete("/api/runs/{number}")
    def remove(number: str) -> dict[str, bool]:
        runs.remove(number)
        return {"removed": True}

    @app.get("/api/runs/{number}/events")
    def stream(number: str, request: Request) -> StreamingResponse:
        store.get(number)
        since = request.headers.get("last-event-id") or request.query_params.get("since") or "0"
        told = _told(parts, number, int(since) if since.isdigit() else 0)
        return StreamingResponse(told, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _add_verbs(app: FastAPI, parts: Parts) -> None:
    store, queue, runs = parts.store, parts.queue, parts.runs

    @app.post("/api/runs/{number}/model")
    def look(number: str, given: Given) -> dict[str, Any]:
        return whole(runs.look(number, given), store, queue)

    @app.post("/api/runs/{number}/plan")
    def plan(number: str, given: Given) -> dict[str, Any]:
        goal = {name: given[name] for name in GOAL_FIELDS if name in given}
        return whole(runs.plan(number, goal), store, queue)

    @app.post("/api/runs/{number}/start")
    def start(number: str, given: Given) -> dict[str, Any]:
        return whole(runs.start(number, given.get("steps")), store, queue)

    @app.post("/api/runs/{number}/cancel")
    def cancel(number: str) -> dict[str, Any]:
        return whole(queue.cancel(number), store, queue)

    @app.post("/api/runs/{number}/resume")
    def resume(number: str) -> dict[str, Any]:
        return whole(runs.resume(number), store, queue)

    @app.post("/api/runs/{number}/copy", status_code=201)
    def copy(number: str) -> dict[str, Any]:
        return whole(runs.copy(number), store, queue)


def _add_files(app: FastAPI, parts: Parts) -> None:
    store = parts.store

    @app.get("/api/runs/{number}/report")
    def report(number: str) -> FileResponse:
        path = one(store.place(number), "report.html")
        return FileResponse(path, headers={"Content-Security-Policy": REPORT_POLICY, "Cache-Control": "no-store"})

    @app.get("/api/runs/{number}/files/{name:path}")
    def file(number: str, name: str) -> FileResponse:
        path = one(store.place(number), name)
        return FileResponse(path, media_type="application/octet-stream", filename=path.name)

    @app.get("/api/runs/{number}/files.zip")
    def everything(number: str) -> StreamingResponse:
        run = store.get(number)
        named = {"Content-Disposition": f'attachment; filename="easycompress-{run.id}.zip"'}
        return StreamingResponse(archive(store.place(number)), media_type="application/zip", headers=named)


async def _told(parts: Parts, number: str, since: int) -> AsyncIterator[str]:
    """Yield a run's events from byte `since` on, as they come; `rest` ends it, where nothing more will come."""
    path = parts.store.place(number) / EVENTS
    silent = 0.0
    yield "retry: 1000\n\n"
    while not parts.closing:
        try:
            resting = parts.store.get(number).resting  # before the lines are read: the last one is then among them
        except Unknown:
            return  # removed meanwhile
        lines = [(place, text) for place, text in events(path, since)]
        for place, text in lines:
            since = place
            yield f"id: {place}\ndata: {text}\n\n"
        if resting:
            yield "event: rest\ndata: {}\n\n"
            return
        silent = 0.0 if lines else silent + GLANCE
        if silent > HEARTBEAT:
            silent = 0.0
            yield ": still here\n\n"
        await anyio.sleep(GLANCE)
