"""Why a row of the LC papers' experiments is short of the paper's, each as it was looked into."""

from __future__ import annotations

FEW_EPOCHS = (
    "10 epochs of the paper's 1 000: with 40, the rows from `benchmarks.lc` come out better than the paper's excess at "
    "21x and 22x"
)

UNTRAINED = "not trained at all: direct compression, the start of the paper's 1 000 epochs"

REASONS: dict[str, str] = {
    "lenet300 quantization k=2": (
        "30 epochs of 400; the last L step's rate matters most of what was tried: on the select split, 1.7 points lost "
        "with 0.005, 0.5 with 0.02, which is used"
    ),
    **{f"resnet20 Q+P {share} %": FEW_EPOCHS for share in (1, 2, 3, 5)},
    **{f"vgg16 L+P rank {rank} + 2 %, no training": UNTRAINED for rank in (2, 3)},
}
"""By row. A row that is missing here and short of the paper's is said to be not looked into."""
