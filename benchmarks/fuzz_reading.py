"""One damaged file: made from a seed and a number, read as the product reads it, and what came of it."""

from __future__ import annotations

import contextlib
import enum
import functools
import hashlib
import io
import math
import resource
import signal
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime

from benchmarks.fuzz_mutations import BLIND, SEALED, mutations_for
from easycompress.artifact.container import HEADER, MOST_GRAPH, dense_graph, read_ecz
from easycompress.artifact.dictionary import DICTIONARY
from easycompress.artifact.inspection import inspect_onnx
from easycompress.artifact.session import constants
from easycompress.artifact.stream import Source, unsqueeze
from easycompress.artifact.unpack import read_unpacked
from easycompress.core.errors import EasyCompressError
from easycompress.core.opening import COPIES, SPARE_BYTES
from easycompress.intake.onnx_checks import declared_bytes, read_checked, read_outside
from easycompress.intake.onnx_in import BATCH, MOST_INPUT, example_inputs, read_onnx
from easycompress.intake.onnx_open import FREE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SECONDS = 5.0
"""Longest time that a file may take."""

SLACK = 64 << 20
"""What Python, numpy and their arenas may take beside twice the declared bytes."""

CONVERTED, UNPACKED = 200, 4
"""Every so manyth accepted .onnx file is converted to PyTorch too, and accepted .ecz file unpacked."""


class Outcome(enum.IntEnum):
    """What came of a file. Those from WRONG on are failures of the product."""

    UNKNOWN = 0
    REFUSED = 1
    REFUSED_APART = 2
    STOPPED_APART = 3
    CRASHED_APART = 4
    IDENTICAL = 5
    ANOTHER = 6
    WRONG = 7
    CRASHED = 8
    HUNG = 9
    OVER_MEMORY = 10
    UNCLEAN = 11


FAILURES = (Outcome.WRONG, Outcome.CRASHED, Outcome.HUNG, Outcome.OVER_MEMORY, Outcome.UNCLEAN)


WEIGHTED = {
    ".ecz": [*BLIND, *SEALED, *SEALED],
    ".onnx": [*BLIND, *["fields"] * 5],
}
"""The mutations of a kind of file, likelier ones several times."""


@dataclass(frozen=True)
class Case:
    """A damaged file: which whole one it was made of, by which mutation."""

    source: Path
    mutation: str
    data: bytes


class Corpus:
    """The whole files, and what is remembered of them."""

    def __init__(self, files: Sequence[Path], seed: int) -> None:
        self.files, self.seed = list(files), seed
        self.bytes = {path: path.read_bytes() for path in files}
        self.groups = {
            suffix: [data for path, data in self.bytes.items() if path.suffix == suffix] for suffix in (".onnx", ".ecz")
        }
        self.model_of = functools.cache(fingerprint)

    def case(self, number: int) -> Case:
        """Return the damaged file of that number: the same one whenever it is asked for."""
        (source, name), rng = self.named(number), np.random.default_rng([self.seed, number])
        data = mutations_for(source.suffix)[name](self.bytes[source], rng, self.groups[source.suffix])
        return Case(source, name, data)

    def named(self, number: int) -> tuple[Path, str]:
        """Return the whole file and the mutation of a number: of ten, about four are blind."""
        source = self.files[number % len(self.files)]
        names = WEIGHTED[source.suffix]
        return source, names[number * 2_654_435_761 // (1 << 16) % len(names)]


def fingerprint(path: Path) -> str:
    """Return a digest of the model that an .ecz file holds: its graph with dense weights, and its codes' arrays."""
    skeleton, codes = read_ecz(path)
    return _digest(skeleton, codes)


def _digest(skeleton: onnx.ModelProto, codes: dict[str, Any]) -> str:
    digest = hashlib.sha256(dense_graph(skeleton, codes).SerializeToString(deterministic=True))
    for name, code in sorted(codes.items()):
        digest.update(f"{name} {code.form} {code.meta()}".encode())
        for key, array in sorted(code.arrays().items()):
            digest.update(key.encode() + array.contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()


class Reading:
    """Reads damaged files one after the other. `stage` is told where it is: `own` code, or what a `child` would run."""

    def __init__(self, corpus: Corpus, folder: Path, stage: Callable[[str], None]) -> None:
        self.corpus, self.stage = corpus, stage
        self.path = {suffix: folder / f"case{suffix}" for suffix in (".onnx", ".ecz")}
        self.said = ""
        data = next((path for path in corpus.files if path.name == "apart.onnx"), None)
        if data is not None:
            link = folder / "apart.onnx.data"
            link.write_bytes(data.with_name("apart.onnx.data").read_bytes())

    def read(self, number: int) -> Outcome:  # noqa: PLR0911 - one an outcome
        """Make the file of a number and read it."""
        case = self.corpus.case(number)
        self.said = ""
        path = self.path[case.source.suffix]
        path.write_bytes(case.data)
        try:
            if case.source.suffix == ".ecz":
                return self._packed(case, path, number)
            return self._graph(case, path, number)
        except EasyCompressError as error:
            self.said = str(error)
            if "\n" in self.said:
                return Outcome.UNCLEAN
            return Outcome.OVER_MEMORY if _of_memory(error) else Outcome.REFUSED
        except _Apart as error:
            self.said = str(error)
            return Outcome.REFUSED_APART
        except MemoryError:
            self.said = traceback.format_exc()
            return Outcome.OVER_MEMORY
        except Exception:  # noqa: BLE001 - what escapes is what is looked for
            self.said = traceback.format_exc()
            return Outcome.UNCLEAN

    def _packed(self, case: Case, path: Path, number: int) -> Outcome:
        try:
            with memory(SLACK):
                skeleton, codes = read_ecz(path)
        except (EasyCompressError, MemoryError) as error:
            if not _of_memory(error):
                raise
            with memory(2 * declared(case.data) + SLACK):
                skeleton, codes = read_ecz(path)
        if _digest(skeleton, codes) == self.corpus.model_of(case.source):
            return Outcome.IDENTICAL
        if case.mutation not in SEALED:
            return Outcome.WRONG
        if number % UNPACKED == 0:
            with contextlib.suppress(EasyCompressError):
                read_unpacked(path)
        return Outcome.ANOTHER

    def _graph(self, case: Case, path: Path, number: int) -> Outcome:
        size = len(case.data)
        with memory(8 * size + SLACK):
            proto, outside = read_checked(path)
            read_outside(proto, path)
        with memory(2 * inputs_bytes(proto) + SLACK):
            feed = {name: value.numpy() for name, value in example_inputs(proto, path, None, 0).items()}
        self._apart(lambda: _run(path, feed), size + outside)
        inspect_onnx(path, lambda *given: self._apart(lambda: constants(*given), size + outside))
        if number % CONVERTED == 0:
            with contextlib.suppress(EasyCompressError), contextlib.redirect_stderr(io.StringIO()):
                read_onnx(path)
        return Outcome.IDENTICAL if case.data == self.corpus.bytes[case.source] else Outcome.ANOTHER

    def _apart(self, run: Callable[[], Any], size: int) -> Any:  # noqa: ANN401 - what it returns
        """Run what the product runs in a child process, here, under the same limit."""
        self.stage("child")
        try:
            with memory(SPARE_BYTES + COPIES * size):
                return run()
        except Exception as error:  # the runtime's errors share no base
            raise _Apart(str(error)) from error
        finally:
            self.stage("own")


class _Apart(Exception):
    """ONNX Runtime refused a file."""


def _run(path: Path, feed: dict[str, Any]) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feed)


@contextlib.contextmanager
def memory(more: int) -> Iterator[None]:
    """Let this process allocate no more than so many bytes beyond what it has."""
    used = int(Path("/proc/self/statm").read_bytes().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def declared(data: bytes) -> int:
    """Return the bytes that a packed file says to hold: of its graph, and of all its tensors."""
    length = HEADER.unpack_from(data)[3]
    graph = unsqueeze(data[HEADER.size : HEADER.size + length], MOST_GRAPH, DICTIONARY)
    skeleton = onnx.ModelProto.FromString(Source(graph).block())
    total = len(graph)
    for tensor in skeleton.graph.initializer:
        with contextlib.suppress(ValueError):
            total += declared_bytes(tensor)
    return min(total, math.prod((1 << 16, len(data), 4)))


def inputs_bytes(proto: onnx.ModelProto) -> int:
    """Return the bytes that the inputs of BATCH samples say to take, of those that aren't refused."""
    shapes = [[d.dim_value or FREE for d in value.type.tensor_type.shape.dim] for value in proto.graph.input]
    return sum(8 * min(BATCH * math.prod(map(abs, shape)), MOST_INPUT) for shape in shapes)


def _of_memory(error: BaseException | None) -> bool:
    """Tell whether an error came of the memory's limit."""
    while error is not None:
        if isinstance(error, MemoryError) or "alloc" in str(error):
            return True
        error = error.__cause__
    return False


def work(corpus: Corpus, folder: Path, numbers: Sequence[int], results: Any, state: Any, log: Path) -> None:  # noqa: ANN401 - arrays
    """Read the files of these numbers; `results` gets each outcome, `state` (number + 1, stage) where it is.

    Outcomes that are failures are written to `log`, and crashes by Python's own traceback.
    """
    onnxruntime.set_default_logger_severity(4)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def stage(name: str) -> None:  # each part has its own seconds
        state[2], state[1] = int(1e3 * time.process_time()), 1 if name == "child" else 0

    reading = Reading(corpus, folder, stage)
    for number in numbers:
        state[1], state[2], state[0] = 0, int(1e3 * time.process_time()), number + 1
        outcome = reading.read(number)
        results[number] = outcome
        if outcome in FAILURES:
            with log.open("a") as file:
                file.write(f"--- {number} {outcome.name} {reading.said}\n")
    state[0] = 0
