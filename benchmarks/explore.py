"""Trade-off curves of the trained models, as the LC papers draw them: the pictures in README and docs.

    python -m benchmarks.explore --zoo ZOO --data DATA --models lenet300 lenet5 [--figures] [--only-draw]

Each model is one `easycompress explore` into out/explore/NAME, which goes on where it was stopped; its pictures, CSV
and JSON are then copied to benchmarks/results/explore/NAME, and those that the docs show to docs/images. With
--only-draw no point is measured. Without a zoo it is the demo's model.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from benchmarks.zoo import DEMO, add_folders, chosen, locate
from easycompress import explore

RESULTS = Path(__file__).parent / "results" / "explore"
IMAGES = Path(__file__).parents[1] / "docs" / "images"
OUT = Path("out/explore")

SHOWN = {"lenet5": ("error-size", "error-packed"), "lenet300": ("error-size",)}
"""Pictures that the docs show, as MODEL-NAME.png."""

KEPT = ("error-size", "error-packed", "error-compute", "loss-size", "degradation", "recovery", "distillation")
"""Pictures that are kept beside the numbers, as PNG; those of size as SVG too."""


class Spoken:
    """Prints what is told."""

    def say(self, text: str) -> None:
        """Print it."""
        print(text, flush=True)

    def now(self, text: str) -> None:
        """Ignore."""


def main() -> None:
    """Explore, or draw what is known, and copy what is worth keeping."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--figures", action="store_true", help="the thesis's figures 11 to 13 too")
    parser.add_argument("--only-draw", action="store_true", help="measure no new point")
    parser.add_argument("--work", type=Path, default=OUT, help="folder of the explorations")
    options = parser.parse_args()
    torch.set_num_threads(max(1, options.workers))
    for name in chosen(options):
        path, flags = locate(name, options)
        found = explore(
            path, out=options.work / name, epochs=options.epochs, workers=options.workers, figures=options.figures,
            budget="1s" if options.only_draw else None, max_drop="1%", progress=Spoken(), **flags,
        )  # fmt: skip
        keep(name, found.out)


def keep(name: str, out: Path) -> None:
    """Copy numbers and pictures of a model to where they are committed."""
    if name == DEMO:
        return
    folder = RESULTS / name
    folder.mkdir(parents=True, exist_ok=True)
    IMAGES.mkdir(parents=True, exist_ok=True)
    data = json.loads((out / "curves.json").read_text())
    for key in ("model", "factory", "data"):  # where the files lay is nobody's business
        data["request"][key] = Path(str(data["request"][key])).name
    (folder / "curves.json").write_text(json.dumps(data, indent=1) + "\n")
    files = ["curves.csv", "error-size.svg", *(f"{picture}.png" for picture in KEPT)]
    for file in files:
        if (out / file).is_file():
            shutil.copyfile(out / file, folder / file)
    for picture in SHOWN.get(name, ()):
        if (out / f"{picture}.png").is_file():
            shutil.copyfile(out / f"{picture}.png", IMAGES / f"{name}-{picture}.png")


if __name__ == "__main__":
    main()
