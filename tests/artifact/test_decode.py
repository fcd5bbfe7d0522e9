"""Every stored form and sum of forms becomes operators that ONNX Runtime folds to the very tensor the code says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from easycompress.artifact.attach import ROUNDING, attach_codes
from easycompress.artifact.decode import decode
from easycompress.artifact.slim import slim
from easycompress.codes.affine import Affine, quantize_per_channel
from easycompress.codes.codebook import Codebook
from easycompress.codes.composed import Additive, Scaled
from easycompress.codes.hashed import Hashed
from easycompress.codes.lowrank import LowRank
from easycompress.codes.sparse import Sparse, sparse_from
from easycompress.core.errors import CannotCompress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easycompress.codes.base import Code

Array = np.ndarray


def book(shape: tuple[int, ...], k: int, rare: float = 1.0, common: int = 0) -> Codebook:
    """A codebook where `rare` of the weights are drawn evenly and all others have index `common`."""
    drawn, chosen = torch.randint(k, shape), torch.rand(shape) < rare
    return Codebook(torch.where(chosen, drawn, torch.full_like(drawn, common)).to(torch.uint8), torch.randn(k))


def sparse(shape: tuple[int, ...], share: float) -> Sparse:
    return sparse_from(torch.randn(shape), torch.rand(shape) < share)


def low_rank(shape: tuple[int, ...], rank: int, rows: int, layout: str = "scheme-1") -> LowRank:
    columns = int(np.prod(shape)) // rows
    return LowRank(torch.randn(rows, rank).half(), torch.randn(rank, columns).half(), shape, layout)  # type: ignore[arg-type]


def ends(shape: tuple[int, ...], places: list[int]) -> Sparse:
    return Sparse(torch.tensor(places), torch.randn(len(places)).half(), shape)


CONV = (6, 5, 3, 3)
MATRIX = (37, 29)


def exact_codes() -> dict[str, Code]:
    torch.manual_seed(1)
    codes: dict[str, Code] = {f"even k={k}": book(MATRIX, k) for k in (2, 3, 4, 5, 8, 16, 17, 100, 128, 200, 256)}
    codes |= {f"mask k={k}": book(MATRIX, k, 0.3, common=1) for k in (3, 5, 16, 40, 256)}
    codes |= {f"gaps k={k}": book((80, 90), k, 0.02, common=k - 1) for k in (2, 3, 9, 256)}
    codes |= {f"sparse {share}": sparse((90, 100), share) for share in (0.001, 0.03, 0.5, 1.0)}
    codes |= {
        "conv planes": book(CONV, 4),
        "vector planes": book((11,), 3),
        "vector sparse": sparse((50,), 0.2),
        "k=1": book(MATRIX, 1),
        "all the same": Codebook(torch.full(MATRIX, 2, dtype=torch.uint8), torch.randn(4)),
        "one entry of two": Codebook(torch.zeros((3, 1), dtype=torch.uint8), torch.randn(2)),
        "one weight": book((1, 1), 2),
        "empty sparse": Sparse(torch.zeros(0, dtype=torch.int64), torch.zeros(0).half(), CONV),
        "first and last": ends((200, 300), [0, 59_999]),
        "only the last": ends((400, 500), [199_999]),
        "only the first": ends((4, 5), [0]),
        "hashed": Hashed(torch.randn(23), CONV, seed=5),
        "hashed to one": Hashed(torch.randn(1), MATRIX),
        "hashed, large seed": Hashed(torch.randn(300), (50, 40), seed=2**31 - 2),
        "affine": quantize_per_channel(torch.randn(CONV)),
        "affine vector": quantize_per_channel(torch.randn(13, 1)),
        "affine, one scale": Affine(torch.randint(-127, 128, MATRIX).to(torch.int8), torch.tensor([0.3])),
        "Q+P": Additive((book(MATRIX, 2), sparse(MATRIX, 0.05))),
        "P+Q": Additive((sparse(MATRIX, 0.05), book(MATRIX, 3, 0.3))),
        "Q+Q+P": Additive((book(CONV, 2), book(CONV, 4, 0.1), sparse(CONV, 0.1))),
        "order of a sum": Additive((book(CONV, 200), book(CONV, 200), book(CONV, 200), book(CONV, 200))),
        "sum with nothing": Additive((sparse(CONV, 0.0), book(CONV, 2))),
        "sum of nothing": Additive((sparse(CONV, 0.0), sparse(CONV, 0.0))),
        "sum of one": Additive((book(CONV, 2),)),
        "sum of a sum": Additive((Additive((book(CONV, 2), sparse(CONV, 0.1))), sparse(CONV, 0.2))),
        "sum with a constant": Additive((book(CONV, 1), sparse(CONV, 0.1))),
        "hashed and sparse": Additive((Hashed(torch.randn(9), CONV), sparse(CONV, 0.1))),
        "affine and sparse": Additive((quantize_per_channel(torch.randn(CONV)), sparse(CONV, 0.1))),
        "scaled": Scaled(book(CONV, 4), torch.randn(6)),
        "scaled vector": Scaled(book((7,), 4), torch.randn(7)),
        "scaled sum": Scaled(Additive((book(CONV, 4), sparse(CONV, 0.1))), torch.randn(6)),
        "sum with scaled": Additive((sparse(CONV, 0.1), Scaled(book(CONV, 4), torch.randn(6)))),
        "scaled by float16": Scaled(book((64, 9), 4), torch.randn(64).half().float()),
        "float16 entries": Codebook(torch.randint(256, MATRIX).to(torch.uint8), torch.randn(256).half().float()),
        "huge entries": Codebook(torch.randint(64, MATRIX).to(torch.uint8), torch.full((64,), 1e30)),
        "scaled nothing": Scaled(sparse(CONV, 0.0), torch.randn(6)),
        "scaled constant": Scaled(book(CONV, 1), torch.randn(6)),
        "rank 0": low_rank(MATRIX, 0, 37),
        "rank 0 and sparse": Additive((low_rank(CONV, 0, 6), sparse(CONV, 0.1))),
    }
    return codes


def rounding_codes() -> dict[str, Code]:
    torch.manual_seed(2)
    return {
        "low rank": low_rank(MATRIX, 4, 37),
        "rank 1": low_rank((1, 9), 1, 1),
        "scheme 1": low_rank(CONV, 3, 6, "scheme-1"),
        "scheme 2": low_rank(CONV, 3, 18, "scheme-2"),
        "low rank and sparse": Additive((low_rank(CONV, 3, 18, "scheme-2"), sparse(CONV, 0.1))),
        "low rank and codebook": Additive((book(MATRIX, 2), low_rank(MATRIX, 2, 37))),
        "scaled low rank": Scaled(low_rank(CONV, 3, 6), torch.rand(6)),
    }


EXACT, ROUNDING_CODES = exact_codes(), rounding_codes()


def plain(dense: dict[str, Array]) -> onnx.ModelProto:
    """A graph that adds a number to each tensor: it answers with the tensors themselves."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", name], [f"{name} out"]) for name in dense],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info(f"{name} out", TensorProto.FLOAT, array.shape) for name, array in dense.items()],
        [numpy_helper.from_array(array, name) for name, array in dense.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def coded(codes: dict[str, Code]) -> onnx.ModelProto:
    proto = slim(attach_codes(plain({name: code.dense().numpy() for name, code in codes.items()}), codes))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def folded(proto: onnx.ModelProto, path: Path) -> tuple[onnx.ModelProto, list[Array]]:
    """What a stock session makes of a file, and its answers to x = 0."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(str(path)), session.run(None, {"x": np.zeros(1, dtype=np.float32)})


@pytest.mark.parametrize("name", [*EXACT, *ROUNDING_CODES])
def test_a_session_folds_the_operators_to_the_codes_own_tensor(name: str, tmp_path: Path) -> None:
    code = (EXACT | ROUNDING_CODES)[name]
    optimised, (answer,) = folded(coded({"w": code}), tmp_path / "folded.onnx")
    dense = code.dense().numpy()
    assert [node.op_type for node in optimised.graph.node] == ["Add"]
    (weight,) = optimised.graph.initializer
    assert weight.data_type == TensorProto.FLOAT
    rebuilt = numpy_helper.to_array(weight)
    assert rebuilt.shape == answer.shape == dense.shape
    if name in EXACT:
        assert np.array_equal(rebuilt, dense)
        assert np.array_equal(answer, dense)
    else:
        assert np.abs(rebuilt - dense).max() <= ROUNDING * np.abs(dense).max()


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("planes", ["even k=4", "even k=8", "even k=16", "even k=128", "even k=256", "conv planes"]),
        ("mask", ["even k=3", "even k=5", "even k=17", "mask k=5", "mask k=16", "mask k=256"]),
        ("gaps", ["gaps k=2", "gaps k=3", "gaps k=9", "gaps k=256", "all the same"]),
    ],
)
def test_every_layout_is_among_these_codes(layout: str, names: list[str]) -> None:
    assert {code.layout for name in names if isinstance(code := EXACT[name], Codebook)} == {layout}


def test_all_forms_in_one_file(tmp_path: Path) -> None:
    codes = EXACT | ROUNDING_CODES
    optimised, answers = folded(coded(codes), tmp_path / "folded.onnx")
    assert {node.op_type for node in optimised.graph.node} == {"Add"}
    assert {tensor.data_type for tensor in optimised.graph.initializer} == {TensorProto.FLOAT}
    for (name, code), answer in zip(codes.items(), answers, strict=True):
        dense = code.dense().numpy()
        allowed = ROUNDING * float(np.abs(dense).max()) if name in ROUNDING_CODES else 0.0
        assert np.abs(answer - dense).max() <= allowed, name


def bytes_beyond(codes: dict[str, Code]) -> int:
    """Bytes of the file beyond the codes' own arrays and what the file takes with its weights as inputs."""
    dense = slim(plain({name: code.dense().numpy() for name, code in codes.items()}))
    frame = len(dense.SerializeToString()) - sum(len(tensor.raw_data) for tensor in dense.graph.initializer)
    own = sum(int(code.bits()) // 8 for code in codes.values())
    return len(coded(codes).SerializeToString()) - frame - own


LAYERS = [(16 + i, 16 + 2 * i, 3, 3) for i in range(16)]


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda shape: book(shape, 2), 200),
        (lambda shape: book(shape, 16), 200),
        (lambda shape: book(shape, (2, 4, 16)[shape[0] % 3]), 200),
        (lambda shape: book(shape, 3), 200),
        (lambda shape: book(shape, 16, 0.03), 200),
        (lambda shape: sparse(shape, 0.03), 200),
        (lambda shape: sparse(shape, (0.003, 0.03, 0.3)[shape[0] % 3]), 250),
        (lambda shape: Additive((book(shape, 2), sparse(shape, 0.03))), 250),
        (lambda shape: Hashed(torch.randn(50), shape), 250),
        (lambda shape: low_rank(shape, 3, shape[0]), 250),
        (lambda shape: quantize_per_channel(torch.randn(shape)), 150),
    ],
    ids=["k=2", "k=16", "mixed k", "ternary", "gaps", "sparse", "mixed sparse", "Q+P", "hashed", "low rank", "affine"],
)
def test_layers_share_their_chains(make: Callable[[tuple[int, ...]], Code], most: int) -> None:
    assert bytes_beyond({"w": make(LAYERS[0])}) <= 800
    layers = {f"layer{i}.weight": make(shape) for i, shape in enumerate(LAYERS)}
    assert bytes_beyond(layers) <= most * len(LAYERS)


def test_leaves_of_very_unlike_density_keep_their_own_gaps() -> None:
    codes: dict[str, Code] = {"thin": sparse((300, 1000), 0.001), "thick": sparse((300, 1000), 0.3)}
    codes |= {"thin too": sparse((300, 999), 0.001)}
    operators = [node.op_type for node in coded(codes).graph.node]
    assert operators.count("CumSum") == operators.count("ScatterElements") == 2


def test_a_form_without_operators_is_refused() -> None:
    class Other:
        form, shape = "fractal", (2, 2)

    with pytest.raises(CannotCompress, match=r"^the stored form 'fractal' has no ONNX operators; write the packed"):
        decode([Other()], set())  # type: ignore[list-item]


def test_names_avoid_those_that_are_taken() -> None:
    taken = {f"decode_{i}" for i in range(0, 40, 2)}
    chains, _ = decode([EXACT["Q+P"]], taken)
    names = [t.name for t in chains.initializers] + [name for node in chains.nodes for name in node.output]
    assert not taken & set(names)
    assert len(names) == len(set(names))


def test_values_that_float16_holds_exactly_take_two_bytes() -> None:
    scale = torch.randn(64)
    code = book((64, 9), 4)
    exact = coded({"w": Scaled(code, scale.half().float())})
    rounded = coded({"w": Scaled(code, scale)})
    assert len(exact.SerializeToString()) < len(rounded.SerializeToString()) - 80
