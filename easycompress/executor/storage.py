"""OUT on an object store or another file system that fsspec knows: s3://bucket/run, gs://, hdfs://, memory://, file://.

A run works in a folder of this machine. Every file that it writes whole is copied to the store at once, and with each
entry of the journal the store is brought to what the folder holds, the journal last: what a kill leaves there is what
it leaves in a folder. A resume begins by fetching it, on any machine.
"""

from __future__ import annotations

import contextlib
import posixpath
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from easycompress.core import files
from easycompress.core.errors import BadInput, EasyCompressError, one_line
from easycompress.executor.journal import FILE, foreign_names
from easycompress.executor.lock import FOLDER, LOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TRIES, PAUSE = 4, 0.5
"""How often an exchange with the store is tried, and the seconds between; each pause is twice the last."""

JOURNAL = f"{FOLDER}/{FILE}"


def is_remote(out: str | Path | None) -> bool:
    """Tell whether OUT is a URL."""
    return out is not None and "://" in str(out)


class Store:
    """A folder of this machine and the one at `url` that follows it."""

    def __init__(self, url: str, folder: Path) -> None:
        try:
            import fsspec  # noqa: PLC0415 - the optional extra `scale`
        except ImportError as error:
            raise BadInput(f'-o {url}: fsspec is not installed; pip install "easycompress[scale]"') from error
        self.url, self.folder = url, folder
        try:
            self.system, self.root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:  # of the store's own package, e.g. s3fs
            raise BadInput(f"-o {url}: {one_line(error)}; name a store that fsspec has a package for") from error
        self.there: dict[str, tuple[int, int]] = {}
        self.begun = False
        """A run has written something: before that the folder may hold less than the store."""

    def fetch(self, *, whole: bool) -> None:
        """Bring what is in the store into the folder: all of it, or no more than tells the state of a run.

        Raises BadInput where somebody else's files are in there.
        """
        names = self._tried(self._listed)
        foreign = foreign_names({name.partition("/")[0] for name in names})
        if foreign:
            raise BadInput(
                f"{self.url}: holds other files ({', '.join(foreign[:3])}); easycompress writes only into a folder of "
                "its own: choose another with -o"
            )
        self.there = dict.fromkeys(names, (-1, -1))
        for name in names:
            if name == f"{FOLDER}/{LOCK}" or not (whole or name == JOURNAL):
                continue
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._tried(partial(self.system.get_file, self._at(name), str(path)))
            self.there[name] = _stamp(path)

    def written(self, path: Path) -> None:
        """Copy a file that was just written; the journal says what the others mean, so they go first."""
        if not path.is_relative_to(self.folder):
            return
        self.begun = True
        name = path.relative_to(self.folder).as_posix()
        if name == JOURNAL:
            self.follow()
        else:
            self._put(name)

    def follow(self) -> None:
        """Bring the store to what the folder holds, the journal last, and remove what is gone."""
        here = {
            path.relative_to(self.folder).as_posix(): _stamp(path)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name != LOCK and not path.name.endswith(".tmp")
        }
        for name in sorted(here, key=lambda name: name == JOURNAL):
            if self.there.get(name) != here[name]:
                self._put(name)
        for name in self.there.keys() - here.keys():
            self._tried(partial(self._remove, name))
            del self.there[name]

    def _put(self, name: str) -> None:
        path = self.folder / name
        stamp = _stamp(path)
        self._tried(lambda: self._copy(path, self._at(name)))
        self.there[name] = stamp

    def _copy(self, path: Path, target: str) -> None:
        """Copy a file, which is either whole or not there: objects always are, files take their name at the end."""
        self.system.makedirs(posixpath.dirname(target), exist_ok=True)
        if "file" not in _protocols(self.system):
            self.system.put_file(str(path), target)
            return
        self.system.put_file(str(path), f"{target}.part")
        self.system.mv(f"{target}.part", target)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.system.rm_file(self._at(name))

    def _listed(self) -> list[str]:
        if not self.system.exists(self.root):
            return []
        found = [posixpath.relpath(path, self.root) for path in self.system.find(self.root)]
        return [name for name in found if not name.endswith(".part")]

    def _at(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def _tried(self, exchange: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the exchange returns
        """Return what an exchange with the store returns, tried again for a while. Raises BadInput then."""
        for attempt in range(TRIES):
            try:
                return exchange()
            except Exception as error:  # each store has its own; some of them are no OSError
                if attempt == TRIES - 1:
                    raise BadInput(
                        f"{self.url}: the store doesn't answer as it should ({type(error).__name__}: "
                        f"{one_line(error)}); the same command with --resume goes on"
                    ) from error
                time.sleep(PAUSE * 2**attempt)
        raise AssertionError


@contextlib.contextmanager
def stored(url: str, folder: Path, *, resume: bool) -> Iterator[None]:
    """Let `url` follow a folder of this machine during the block; under `resume` the folder begins with what is there.

    What the block refuses is told of the URL, as the user knows no other name.
    """
    store = Store(url, folder)
    store.fetch(whole=resume)
    try:
        with files.watched_by(store.written):
            yield
    except EasyCompressError as error:
        if store.begun:
            with contextlib.suppress(BadInput):  # what is wrong may be the store itself
                store.follow()
        raise type(error)(str(error).replace(str(folder), url)) from error.__cause__
    if store.begun:
        store.follow()


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _protocols(system: Any) -> tuple[str, ...]:  # noqa: ANN401 - fsspec's
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)
