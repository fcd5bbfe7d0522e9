"""Files are not trusted: whatever they say, there is one clear ValueError or a code that holds together."""

from __future__ import annotations

import copy
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from easycompress.codes.affine import Affine, quantize_per_channel
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive, Scaled
from easycompress.codes.half import Half
from easycompress.codes.hashed import Hashed
from easycompress.codes.lowrank import LowRank
from easycompress.codes.reading import FORMS, MOST_DEPTH, MOST_PARTS, read_code
from easycompress.codes.sparse import Sparse

if TYPE_CHECKING:
    from collections.abc import Callable

    from easycompress.codes.base import Code

SPARSE = Sparse(torch.tensor([1, 700]), torch.tensor([1.0, 2.0], dtype=torch.float16), (30, 40))
RARE = torch.zeros(30, 40, dtype=torch.uint8)
RARE[3, 5], RARE[20, 1] = 1, 2
HALF = torch.zeros(30, 40, dtype=torch.uint8)
HALF[:, ::3], HALF[:, 1::3] = 1, 2
CODES: dict[str, Code] = {
    "affine": quantize_per_channel(torch.linspace(-1, 1, 12).reshape(3, 4)),
    "half": Half(torch.linspace(-1, 1, 12).reshape(3, 4).half()),
    "planes": Codebook(torch.arange(12, dtype=torch.uint8).reshape(3, 4) % 6, torch.arange(6.0)),
    "mask": Codebook(torch.where(torch.arange(80) % 5 < 3, 0, torch.arange(80) % 5 - 2).byte(), torch.arange(3.0)),
    "gaps": Codebook(RARE, torch.arange(3.0)),
    "sparse": SPARSE,
    "low-rank": LowRank(torch.ones(3, 2).half(), torch.ones(2, 4).half(), (3, 4)),
    "hashed": Hashed(torch.arange(3.0), (3, 4)),
    "additive": Additive((Codebook(RARE, torch.arange(3.0)), SPARSE)),
    "scaled": Scaled(Additive((SPARSE, SPARSE)), torch.ones(30)),
}


def u8(*shape: int) -> torch.Tensor:
    return torch.full(shape, 255, dtype=torch.uint8)


def f32(*shape: int) -> torch.Tensor:
    return torch.ones(shape)


def f16(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.float16)


def changed(code: Code, meta: dict[str, Any], arrays: dict[str, torch.Tensor | None]) -> Callable[[], Code]:
    """Return a reading of the code's facts with some replaced, or with None left out."""
    facts = {name: value for name, value in (code.meta() | meta).items() if value is not None}
    tensors = {name: array for name, array in (code.arrays() | arrays).items() if array is not None}
    return lambda: read_code(code.form, facts, tensors)


def test_the_examples_cover_every_form_and_layout() -> None:
    assert {code.form for code in CODES.values()} == set(FORMS)
    assert {CODES[name].layout for name in ("planes", "mask", "gaps")} == {"planes", "mask", "gaps"}
    for code in CODES.values():
        assert torch.equal(changed(code, {}, {})().dense(), code.dense())


SHAPE_LIES = [
    (None, "shape is missing"),
    (12, "shape 12 isn't a list of at most 8 sizes"),
    ([1] * 9, r"shape \[1, 1, .*\] isn't a list of at most 8 sizes"),
    ([3, -4], r"shape \[3, -4\] holds something else than whole numbers from 0"),
    ([3, 4.0], r"shape \[3, 4.0\] holds something else than whole numbers from 0"),
    ([3, True], r"shape \[3, True\] holds something else than whole numbers from 0"),
    ([3, "4"], r"shape \[3, '4'\] holds something else than whole numbers from 0"),
    ([3, None], r"shape \[3, None\] holds something else than whole numbers from 0"),
    ([2**16, 2**15], r"shape \[65536, 32768\] has more than 2147483647 elements"),
    ([0, 2**40], r"shape \[0, 1099511627776\] has more than 2147483647 elements"),
    ([10**40], r"shape \[1000.*\] has more than 2147483647 elements"),
]


@pytest.mark.parametrize(("shape", "message"), SHAPE_LIES)
@pytest.mark.parametrize("name", ["planes", "mask", "gaps", "sparse", "low-rank", "hashed"])
def test_a_shape_that_is_none(name: str, shape: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        changed(CODES[name], {"shape": shape}, {})()


LIES: list[tuple[str, dict[str, Any], dict[str, torch.Tensor | None], str]] = [
    ("affine", {}, {"values": None}, "array 'values' is missing"),
    ("affine", {}, {"values": f32(3, 4)}, "array 'values' is float32 (3, 4), not int8"),
    ("affine", {}, {"values": torch.ones((), dtype=torch.int8)}, "affine values need an axis for their scales"),
    ("affine", {}, {"scale": f32(4)}, "4 affine scales for 3 slices"),
    ("affine", {}, {"scale": f16(3)}, "array 'scale' is float16 (3), not float32"),
    ("half", {}, {"values": f32(3, 4)}, "array 'values' is float32 (3, 4), not float16"),
    ("half", {}, {"scale": f32(1)}, "array 'scale' belongs to nothing"),
    ("affine", {}, {"zero": f32(1)}, "array 'zero' belongs to nothing"),
    ("planes", {"layout": "plane"}, {}, "unknown layout 'plane'; this version reads planes, mask, gaps"),
    ("planes", {"layout": ["planes"]}, {}, "unknown layout ['planes']; this version reads planes, mask, gaps"),
    ("planes", {"layout": None}, {}, "layout is missing"),
    ("planes", {"shape": [17]}, {}, "array 'planes' is uint8 (3, 2), not uint8 (3, 3)"),
    ("planes", {"shape": []}, {}, "array 'planes' is uint8 (3, 2), not uint8 (3, 1)"),
    ("planes", {}, {"planes": u8(2, 2)}, "array 'planes' is uint8 (2, 2), not uint8 (3, 2)"),
    ("planes", {}, {"planes": u8(4)}, "array 'planes' is uint8 (4), not uint8 (3, 2)"),
    ("planes", {}, {"planes": u8(3, 2)}, "array 'planes' holds index 7 of 6"),
    ("planes", {}, {"entries": f32(9)}, "array 'planes' is uint8 (3, 2), not uint8 (4, 2)"),
    ("planes", {}, {"entries": f32(0)}, "a codebook of 0 entries; there are 1 to 256"),
    ("planes", {}, {"entries": f32(257)}, "a codebook of 257 entries; there are 1 to 256"),
    ("planes", {}, {"entries": f16(3)}, "array 'entries' is float16 (3), not float32 (any)"),
    ("planes", {}, {"mask": u8(2)}, "array 'mask' belongs to nothing"),
    ("mask", {"common": 3}, {}, "common 3 isn't a whole number from 0 to 2"),
    ("mask", {"common": -1}, {}, "common -1 isn't a whole number from 0 to 2"),
    ("mask", {"common": None}, {}, "common is missing"),
    ("mask", {"count": 31}, {}, "a mask of 32 weights for 31 indices"),
    ("mask", {"count": 81}, {}, "count 81 isn't a whole number from 0 to 80"),
    ("mask", {"count": 32.0}, {}, "count 32.0 isn't a whole number from 0 to 80"),
    ("mask", {"shape": [81]}, {}, "array 'mask' is uint8 (10), not uint8 (11)"),
    ("mask", {}, {"mask": u8(10)}, "a mask of 80 weights for 32 indices"),
    ("mask", {}, {"others": u8(2, 4)}, "array 'others' is uint8 (2, 4), not uint8 (1, 4)"),
    ("mask", {}, {"entries": f32(4), "others": u8(2, 4)}, "array 'others' holds index 3 of 3"),
    ("gaps", {"count": -1}, {}, "count -1 isn't a whole number from 0 to 1200"),
    ("gaps", {"count": 1201}, {}, "count 1201 isn't a whole number from 0 to 1200"),
    ("gaps", {"count": 20}, {}, "array 'others' is uint8 (2, 1), not uint8 (2, 3)"),
    ("gaps", {"shape": [400]}, {}, "gaps that run to position 801 of a tensor of 400 weights"),
    ("gaps", {}, {"others": u8(2, 1)}, "array 'others' holds index 3 of 3"),
    ("gaps", {}, {"gaps": u8(17, 1)}, "gaps of 17 bits; there are at most 16"),
    ("gaps", {}, {"gaps": u8(3, 2)}, "array 'gaps' is uint8 (3, 2), not uint8 (any, 1)"),
    ("gaps", {}, {"entries": f32(1), "others": u8(0, 1)}, "a codebook of one entry has nothing to list"),
    ("sparse", {"shape": [700]}, {}, "gaps that run to position 700 of a tensor of 700 weights"),
    ("sparse", {}, {"values": f16(20)}, "array 'gaps' is uint8 (10, 1), not uint8 (any, 3)"),
    ("sparse", {}, {"values": f16(2, 1)}, "array 'values' is float16 (2, 1), not float16 (any)"),
    ("sparse", {}, {"gaps": None}, "array 'gaps' is missing"),
    ("low-rank", {"layout": "scheme-3"}, {}, "unknown layout 'scheme-3'; this version reads scheme-1, scheme-2"),
    ("low-rank", {"shape": [12]}, {}, "a tensor of shape (12,) has no matrix view"),
    ("low-rank", {"shape": [4, 3]}, {}, "array 'left' is float16 (3, 2), not float16 (4, any)"),
    ("low-rank", {}, {"right": f16(3, 4)}, "array 'right' is float16 (3, 4), not float16 (2, 4)"),
    ("low-rank", {}, {"left": f16(6)}, "array 'left' is float16 (6), not float16 (3, any)"),
    ("hashed", {"seed": 2**31 - 1}, {}, "seed 2147483647 isn't a whole number from 0 to 2147483646"),
    ("hashed", {"seed": -1}, {}, "seed -1 isn't a whole number from 0 to 2147483646"),
    ("hashed", {}, {"values": f32(0)}, "a hashed code needs at least one bucket"),
    ("additive", {"parts": None}, {}, "additive: parts None aren't a list of 1 to 16"),
    ("additive", {"parts": []}, {}, "additive: parts [] aren't a list of 1 to 16"),
    ("additive", {"parts": ["codebook"]}, {}, "additive: parts ['codebook'] aren't all tables"),
    ("additive", {"parts": [{"form": "sparse"}]}, {}, "sparse: meta is None, not a table"),
    ("additive", {"parts": [{"meta": {}}]}, {}, "unknown stored form None; this version reads"),
    ("additive", {"parts": CODES["additive"].meta()["parts"][:1]}, {}, "array '1.gaps' belongs to nothing"),
    ("scaled", {"parts": CODES["additive"].meta()["parts"]}, {}, "scaled: parts"),
    ("scaled", {}, {"scale": f32(40)}, "array 'scale' is float32 (40), not float32 (30)"),
    ("scaled", {}, {"scale": None}, "array 'scale' is missing"),
    ("scaled", {}, {"1.scale": f32(30)}, "array '1.scale' belongs to nothing"),
]


@pytest.mark.parametrize(("name", "meta", "arrays", "message"), LIES, ids=range(len(LIES)))
def test_lies(name: str, meta: dict[str, Any], arrays: dict[str, torch.Tensor | None], message: str) -> None:
    with pytest.raises(ValueError) as error:
        changed(CODES[name], meta, arrays)()
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", ["codebok", "", None, 3, ["sparse"], "x" * 10_000])
def test_unknown_forms(form: object) -> None:
    with pytest.raises(ValueError, match=r"^unknown stored form .{1,40}; this version reads affine-int8, .*, half$"):
        read_code(form, {}, {})


def test_parts_of_different_shapes() -> None:
    parts = Additive((SPARSE, Hashed(f32(1), (40, 30))))
    with pytest.raises(ValueError, match=r"^a sum of tensors of different shapes \[\(30, 40\), \(40, 30\)\]$"):
        changed(parts, {}, {})()


def test_a_lone_number_has_no_channels() -> None:
    code = Scaled(Hashed(f32(1), (1,)), f32(1))
    meta = {"parts": [{"form": "hashed", "meta": {"shape": [], "seed": 0}}]}
    with pytest.raises(ValueError, match=r"^a lone number has no channels to scale$"):
        changed(code, meta, {})()


def test_nesting_has_a_limit() -> None:
    code: Code = Hashed(f32(1), (2,))
    for _ in range(MOST_DEPTH):
        code = Scaled(code, f32(2))
    assert changed(code, {}, {})().shape == (2,)
    with pytest.raises(ValueError, match=r"^codes inside codes, more than 4 deep$"):
        changed(Scaled(code, f32(2)), {}, {})()
    deep: dict[str, Any] = {"parts": []}
    for _ in range(5000):
        deep = {"parts": [{"form": "additive", "meta": deep}]}
    with pytest.raises(ValueError, match=r"^codes inside codes, more than 4 deep$"):
        read_code("additive", deep, {})


def test_parts_have_a_limit_over_all_levels() -> None:
    leaf = Hashed(f32(1), (2,))
    most = Additive((leaf,) * MOST_PARTS)
    assert torch.equal(changed(most, {}, {})().dense(), most.dense())
    with pytest.raises(ValueError, match=r"^additive: parts .* aren't a list of 1 to 16$"):
        changed(Additive((leaf,) * (MOST_PARTS + 1)), {}, {})()
    with pytest.raises(ValueError, match=r"^a code of more than 16 parts$"):
        changed(Additive((most, leaf)), {}, {})()


HUGE = [2**31 - 1]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read as Linux tells it")
@pytest.mark.parametrize(
    ("name", "meta"),
    [
        ("planes", {"shape": HUGE}),
        ("mask", {"shape": HUGE, "count": 32}),
        ("gaps", {"shape": HUGE, "count": 2**31 - 1}),
        ("low-rank", {"shape": [46_340, 46_340]}),
    ],
)
def test_nothing_is_allocated_that_the_arrays_do_not_justify(name: str, meta: dict[str, Any]) -> None:
    import resource  # noqa: PLC0415 - not on every system

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"^array '\w+' is .*, not .*$"):
        changed(CODES[name], meta, {})()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes; an index a weight: 2 GB


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 50),
    st.just(2**70),
    st.floats(),
    st.sampled_from(["", "planes", "mask", "gaps", "scheme-2", *FORMS]),
    st.lists(st.one_of(st.integers(-2, 90), st.none(), st.floats()), max_size=4),
    st.dictionaries(st.sampled_from(["form", "meta", "parts"]), st.integers(), max_size=2),
)
DTYPES = st.sampled_from([torch.uint8, torch.int8, torch.float16, torch.float32, torch.int64])
NAMES = ["values", "scale", "planes", "mask", "others", "gaps", "entries", "left", "right", "0.gaps", "9.values"]


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, Any, dict[str, torch.Tensor]]:
    """A stored code with up to three facts or arrays replaced, added or lost."""
    code = CODES[draw(st.sampled_from(list(CODES)))]
    form, meta, arrays = code.form, copy.deepcopy(code.meta()), code.arrays()
    code_parts = meta.get("parts", [])
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["fact", "array", "lost", "bits", "form"]))
        name = draw(st.sampled_from([*arrays, *NAMES]))
        if kind == "form":
            form = draw(st.sampled_from(FORMS))
        elif kind == "fact":
            inner = draw(st.sampled_from([meta, *(part["meta"] for part in code_parts)]))
            inner[draw(st.sampled_from(["shape", "layout", "common", "count", "seed", "parts"]))] = draw(JUNK)
        elif kind == "array":
            shape = draw(st.lists(st.integers(0, 40), max_size=3))
            arrays[name] = torch.full(shape, draw(st.integers(0, 127)), dtype=torch.float32).to(draw(DTYPES))
        elif kind == "lost":
            arrays.pop(name, None)
        elif name in arrays and arrays[name].numel():
            flipped = arrays[name].clone().reshape(-1)
            flipped.view(torch.uint8)[draw(st.integers(0, flipped.nbytes - 1))] ^= 1 << draw(st.integers(0, 7))
            arrays[name] = flipped.reshape(arrays[name].shape)
    return form, meta, arrays


@given(damaged())
def test_whatever_is_damaged_there_is_one_error_or_a_code_that_holds_together(
    stored: tuple[str, Any, dict[str, torch.Tensor]],
) -> None:
    form, meta, arrays = stored
    try:
        code = read_code(form, meta, arrays)
    except ValueError as error:
        assert 0 < len(str(error)) < 300  # noqa: PT017 - either outcome is right
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert code.form == form
    assert tuple(code.dense().shape) == code.shape
    if not isinstance(code, Affine | Additive | Half | Scaled):  # whose shape is that of their arrays
        assert list(code.shape) == list(meta["shape"])
    again = read_code(form, code.meta(), code.arrays())
    assert torch.equal(again.dense().view(torch.int32), code.dense().view(torch.int32))
