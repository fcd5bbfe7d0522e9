"""The command that serves the web page. It imports late what it needs, as help must be quick."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from easycompress.cli_flags import Text, option


def serve(
    host: Annotated[
        str, option("--host", help="where to listen (default 127.0.0.1: this machine only; others need a token)")
    ] = "127.0.0.1",
    port: Annotated[int, option("--port", help="the port (default 8000; 0: any free one)")] = 8000,
    folder: Annotated[
        Text, option("--folder", help="where uploads and runs are kept (default ./easycompress-runs)")
    ] = None,
    root: Annotated[
        Text,
        option(
            "--root",
            help="models, data and functions must lie in it (default: any folder; with a token: the working folder). "
            "Python functions in it can be run from the page",
        ),
    ] = None,
    token: Annotated[Text, option("--token", help="ask for this one (off loopback one is made and printed)")] = None,
    max_upload: Annotated[str, option("--max-upload", help="most bytes of one upload (default 2GB)")] = "2GB",
    name: Annotated[
        Text, option("--name", help="further names of this server, parted by commas: a.example.org,b.example.org")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="don't open the page")] = False,  # noqa: FBT002 - flags are booleans
) -> int:
    """Serve the web page on this machine: look at a model, plan, compress, watch, compare, download."""
    from easycompress.web import server  # noqa: PLC0415 - imports sockets

    names = tuple(part.strip() for part in (name or "").split(",") if part.strip())
    settings = server.make_settings(host, port, folder, root, token, max_upload, names)
    server.serve(settings, _say, browser=not no_browser and sys.stdout.isatty())
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
