"""Sounds -> what a model takes: waveforms of one rate and length, or what its own feature extractor makes of them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch

from easycompress.core.errors import BadInput, one_line
from easycompress.core.inputs import Bundle, in_order
from easycompress.core.quiet import quiet
from easycompress.intake.columns import AUDIO_COLUMNS
from easycompress.intake.stored import Growing, refuse_too_large

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from easycompress.core.inputs import Inputs

Array: TypeAlias = "np.ndarray[Any, Any]"

MOST_SECONDS = 20
"""Longer sounds are cut: as with MOST_TOKENS of texts, attention over more is too much for a compression run."""

SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")

BEGINNINGS = (b"RIFF", b"fLaC", b"OggS", b"ID3")
"""First bytes of encoded sounds."""

CENTRE = {np.dtype(np.uint8): 128.0}
"""What silence is in a type of samples, where it isn't 0."""

_BATCH = 64
"""Sounds handed to the extractor at a time."""

_FILLED = {"padding": "max_length", "truncation": True}


class Sound(NamedTuple):
    """A waveform (samples,), float32 in -1..1, and its samples a second, None where nobody said it."""

    wave: Array
    rate: int | None


def is_sound(cell: object, column: str) -> bool:
    """Tell whether a cell of that column is a sound: {array, sampling_rate}, an encoded one, or the name of a file."""
    if isinstance(cell, dict):
        if "array" in cell:
            return True
        cell = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
    if isinstance(cell, bytes):
        return cell.startswith(BEGINNINGS) or column in AUDIO_COLUMNS
    return isinstance(cell, str) and cell.lower().endswith(SOUND_SUFFIXES)


def is_extractor(processor: Any) -> bool:  # noqa: ANN401 - transformers is untyped here
    """Tell whether a model's processor is a feature extractor of sounds."""
    return callable(processor) and isinstance(getattr(processor, "sampling_rate", None), int)


def read_sounds(columns: Sequence[tuple[Path, list[Any]]], where: str) -> list[Sound]:
    """Return the sounds in a column's cells, those of each table with the table's path."""
    return [
        sound(cell, path.parent, f"{where}: {path.name} row {row}")
        for path, cells in columns
        for row, cell in enumerate(cells)
    ]


def sound(cell: Any, folder: Path, name: str) -> Sound:  # noqa: ANN401 - a cell of a table
    """Return one cell as a sound; several channels of a file become their mean. `folder`: what a path is relative to.

    Raises BadInput, beginning with `name`, for what is no sound, and for other encodings than WAV.
    """
    if isinstance(cell, dict) and "array" in cell:
        return Sound(_array(cell["array"], name), cell.get("sampling_rate"))
    if isinstance(cell, dict):
        cell = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
    if isinstance(cell, str):
        try:
            cell = (folder / cell).read_bytes()
        except OSError as error:
            raise BadInput(f"{name}: no sound {cell} ({error.strerror}); mend the path or remove the row") from error
    if not isinstance(cell, bytes):
        raise BadInput(f"{name}: holds no sound; write {{array, sampling_rate}}, or {{bytes, path}} of a WAV file")
    return _wav(cell, name)


def _array(values: object, name: str) -> Array:
    try:
        wave = np.asarray(values)
    except ValueError:
        wave = np.zeros((0, 0))
    if wave.ndim != 1 or wave.dtype.kind != "f":
        raise BadInput(
            f"{name}: the sound's array is {wave.dtype} of shape {wave.shape}; write one channel of floats in -1..1"
        )
    return wave.astype(np.float32)


def _wav(encoded: bytes, name: str) -> Sound:
    """Decode a WAV file: PCM of 8 to 32 bits, or floats."""
    from scipy.io import wavfile  # noqa: PLC0415 - slow to import, and only this form needs it

    try:
        rate, samples = wavfile.read(io.BytesIO(encoded))
    except Exception as error:  # its parser fails in many ways on what is damaged
        kind = "no readable WAV" if encoded.startswith(b"RIFF") else "a sound, but no WAV"
        raise BadInput(
            f"{name}: is {kind} ({one_line(error, 80)}); decode it, and write WAV or {{array, sampling_rate}}"
        ) from error
    wave = from_samples(samples)
    return Sound(wave.mean(1) if wave.ndim > 1 else wave, int(rate))


def from_samples(samples: Array) -> Array:
    """Return samples as float32: integers of a type's whole range become -1..1, floats stay."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    scaled: Array = ((samples.astype(np.float64) - CENTRE.get(samples.dtype, 0.0)) / half).astype(np.float32)
    return scaled


def prepared(
    groups: Mapping[str, Sequence[Sound]],
    processor: Any,  # noqa: ANN401 - transformers is untyped here
    model: nn.Module,
    where: str,
) -> tuple[dict[str, Inputs], list[str]]:
    """Return every group's (a split's) inputs, all of one length, and notes.

    With a feature extractor: what it makes of the waveforms at its own rate, for the model's forward. Without: the
    waveforms (N, samples), shorter ones followed by silence. Raises BadInput for rates that differ where nothing says
    which the model takes, and for an extractor that fails.
    """
    extractor = processor if is_extractor(processor) else None
    notes: list[str] = []
    rate = _rate([s.rate for group in groups.values() for s in group], extractor, where, notes)
    waves = {name: [_at_rate(s, rate) for s in group] for name, group in groups.items()}
    resampled = sum(s.rate not in (None, rate) for group in groups.values() for s in group)
    if resampled:
        notes.append(f"{resampled} sounds were resampled to {rate} Hz")
    length = max(len(wave) for group in waves.values() for wave in group)
    if length == 0:
        raise BadInput(f"{where}: every sound is empty; give waveforms")
    most = length if rate is None else MOST_SECONDS * rate
    if cut := sum(len(wave) > most for group in waves.values() for wave in group):
        notes.append(f"{cut} sounds were cut to {MOST_SECONDS} seconds")
        length = most
    if extractor is not None:
        return {name: _extracted(extractor, g, length, model, f"{where}: {name}") for name, g in waves.items()}, notes
    if short := sum(len(wave) < length for group in waves.values() for wave in group):
        notes.append(f"{short} sounds are shorter than the longest and were followed by silence")
    return {name: _padded(group, length, f"{where}: {name}") for name, group in waves.items()}, notes


def _rate(rates: Sequence[int | None], extractor: Any, where: str, notes: list[str]) -> int | None:  # noqa: ANN401 - transformers is untyped here
    """Return the rate of all waveforms: the extractor's, else their own."""
    if extractor is not None:
        if None in rates:
            notes.append(
                f"nothing says how the waveforms were sampled: they are taken for {extractor.sampling_rate} Hz"
            )
        return int(extractor.sampling_rate)
    found = sorted({rate for rate in rates if rate is not None})
    if len(found) > 1:
        listed = ", ".join(map(str, found))
        raise BadInput(f"{where}: sounds of {listed} Hz, and nothing says which the model takes; resample them to one")
    return found[0] if found else None


def _at_rate(given: Sound, rate: int | None) -> Array:
    if given.rate is None or rate is None or given.rate == rate:
        return given.wave
    from scipy.signal import resample_poly  # noqa: PLC0415 - slow to import, and only this form needs it

    made: Array = resample_poly(given.wave, rate, given.rate).astype(np.float32)
    return made


def _padded(waves: Sequence[Array], length: int, where: str) -> torch.Tensor:
    refuse_too_large(len(waves), 4 * length, where)
    growing = Growing(where)
    for start in range(0, len(waves), _BATCH):
        batch = waves[start : start + _BATCH]
        block = np.zeros((len(batch), length), dtype=np.float32)
        for row, wave in zip(block, batch, strict=True):
            row[: len(wave)] = wave[:length]
        growing.add(torch.from_numpy(block))
    return growing.tensor()


def _extracted(extractor: Any, waves: Sequence[Array], length: int, model: nn.Module, where: str) -> Inputs:  # noqa: ANN401 - transformers is untyped here
    """Return what the extractor makes of a split's waveforms: one tensor, or several by keyword."""
    plain = getattr(extractor, "feature_size", None) == 1  # waveforms stay waveforms: others have a length of their own
    options = {**_FILLED, "max_length": length} if plain else {}
    found: dict[str, Growing] = {}
    for start in range(0, len(waves), _BATCH):
        batch = [wave[:length] for wave in waves[start : start + _BATCH]]
        try:
            with quiet("transformers"):
                made = extractor(batch, sampling_rate=extractor.sampling_rate, return_tensors="pt", **options)
        except Exception as error:  # the model's own extractor may raise anything
            raise BadInput(f"{where}: the model's feature extractor raised {one_line(error)}") from error
        for name, tensor in made.items():
            if name not in found:
                found[name] = Growing(where)
                refuse_too_large(len(waves), tensor[0].nbytes, where)
            found[name].add(tensor.float() if tensor.is_floating_point() else tensor.long())
    tensors = {name: growing.tensor() for name, growing in found.items()}
    if len(tensors) == 1:
        return next(iter(tensors.values()))
    return in_order(model, Bundle(tuple(tensors.values()), tuple(tensors)))
