"""Time and memory of profile, plan and weight-only quantization as models grow from 1 to 1 300 million parameters.

`python -m benchmarks.scale [--sizes 1,10,100,1000,1300] [--again]`. Each is a Llama with random weights, read from a
state dict by its factory, in float32. Every measurement is a process of its own, whose peak is the system's account of
it (ru_maxrss): Python, torch and transformers with about 0.8 GB of it included. Finished rows are kept in
results/scale.json; `--again` measures them anew.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from easycompress import api
from easycompress.assemble import make_the_task
from easycompress.intake.config import make_request
from easycompress.planning import make_plan
from easycompress.prepare import prepare

RESULTS = Path(__file__).parent / "results" / "scale.json"

SHAPES = {
    1: (128, 4, 344, 1000),
    10: (256, 8, 688, 7000),
    100: (768, 10, 2064, 18500),
    1000: (2048, 17, 5504, 32000),
    1300: (2048, 24, 5504, 32000),
}
"""By millions of parameters: hidden size, layers, inner size, vocabulary."""

HEAD = 64
SAMPLES, TOKENS = 8, 16

TARGETS = {"plan": "3.5x", "compress": "5x"}
"""Planned is what the trees choose, compressed the recipe."""

RECIPE = "steps:\n- kind: weight-only\n  bits: 4\n"

USER = """\
import torch
from transformers import LlamaConfig, LlamaForCausalLM


def make():
    return LlamaForCausalLM(LlamaConfig(
        hidden_size={hidden}, num_hidden_layers={layers}, intermediate_size={inner}, vocab_size={vocabulary},
        num_attention_heads={heads}, num_key_value_heads={heads}, use_cache=False))


def data():
    tokens = torch.randint(0, {vocabulary}, ({samples}, {tokens}), generator=torch.Generator().manual_seed(0))
    return {{"test": (tokens, tokens)}}
"""


def peak_bytes() -> int:
    """Return the most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def write_model(folder: Path, size: int) -> None:
    """Write the factory, its state dict and the recipe into `folder`."""
    hidden, layers, inner, vocabulary = SHAPES[size]
    text = USER.format(
        hidden=hidden,
        layers=layers,
        inner=inner,
        vocabulary=vocabulary,
        heads=hidden // HEAD,
        samples=SAMPLES,
        tokens=TOKENS,
    )
    (folder / "user.py").write_text(text)
    (folder / "recipe.yaml").write_text(RECIPE)
    names: dict[str, Any] = {}
    exec(text, names)  # noqa: S102 - one source for the file and for this process
    torch.manual_seed(0)
    save_file(names["make"]().state_dict(), folder / "model.safetensors")


def flags(folder: Path, work: str) -> dict[str, Any]:
    """Return the flags of the run on the model in `folder`."""
    return {
        "factory": f"{folder}/user.py:make",
        "data": f"{folder}/user.py:data",
        "metric": "perplexity",
        "objective": "size",
        "target": TARGETS[work],
        "max_drop": "50%rel",
        "budget": "none",
        "threads": 1,
    }


def plan(folder: Path) -> dict[str, Any]:
    """Measure reading, profile and plan of the model in `folder`, in this process."""
    model = folder / "model.safetensors"
    request, base = make_request(str(model), flags(folder, "plan"), use_file=False)
    row: dict[str, Any] = {}
    begin = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal begin
        row[name] = {"seconds": round(time.perf_counter() - begin, 2), "peak_bytes": peak_bytes()}
        begin = time.perf_counter()

    task = make_the_task(model, request, base, (None, None, None))
    lap("read")
    prepared = prepare(task, request, folder)
    lap("profile")
    chosen = make_plan(prepared, request, base, 0.0)
    lap("plan")
    row["steps"] = [step.describe() for step in chosen.steps]
    row["parameters"], row["macs"] = prepared.profile.params, prepared.profile.macs
    return row


def compress(folder: Path) -> dict[str, Any]:
    """Measure a whole weight-only run on the model in `folder`, in this process."""
    begin = time.perf_counter()
    settings = flags(folder, "compress") | {"recipe": str(folder / "recipe.yaml")}
    result = api.compress(folder / "model.safetensors", out=folder / "out", **settings)
    report = result.report
    return {
        "weight_only": {"seconds": round(time.perf_counter() - begin, 2), "peak_bytes": peak_bytes()},
        "verdict": report.verdict,
        "original_bytes": report.baseline.size_bytes,
        "bytes": report.final.size_bytes,
        "perplexity": [round(report.baseline.quality, 1), round(report.final.quality, 1)],
    }


WORK = {"plan": plan, "compress": compress}


def measure(size: int) -> dict[str, Any]:
    """Write a model of `size` million parameters and measure it, each kind of work in a process of its own."""
    row: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="easycompress-scale-") as folder:
        for work in ("write", *WORK):
            command = [
                sys.executable,
                "-m",
                "benchmarks.scale",
                "--work",
                work,
                "--folder",
                folder,
                "--size",
                str(size),
            ]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this module
            row |= json.loads(done.stdout.splitlines()[-1])
    return row


def table(rows: dict[str, Any]) -> str:
    """Return the rows for people; x is the peak over the bytes of the float32 weights."""
    lines = ["million   read s  profile s   plan s   peak GB      x   weight-only s   peak GB      x   file"]
    for size, row in rows.items():
        weights = 4 * row["parameters"]
        planned, quantized = row["plan"]["peak_bytes"], row["weight_only"]["peak_bytes"]
        lines.append(
            f"{size:>7} {row['read']['seconds']:8.1f} {row['profile']['seconds']:10.1f} {row['plan']['seconds']:8.2f} "
            f"{planned / 1e9:9.2f} {planned / weights:6.2f} {row['weight_only']['seconds']:15.1f} "
            f"{quantized / 1e9:9.2f} {quantized / weights:6.2f} {row['original_bytes'] / row['bytes']:5.2f}x"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure the sizes that are asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(map(str, SHAPES)), help="millions of parameters")
    parser.add_argument("--again", action="store_true", help="measure finished rows anew")
    parser.add_argument("--work", choices=("write", *WORK), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work == "write":
        write_model(options.folder, options.size)
        print("{}")
        return
    if options.work:
        print(json.dumps(WORK[options.work](options.folder)))
        return
    rows: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for size in map(int, options.sizes.split(",")):
        if options.again or str(size) not in rows:
            rows[str(size)] = measure(size)
            rows = {key: rows[key] for key in sorted(rows, key=int)}
            RESULTS.write_text(json.dumps(rows, indent=2) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
