"""The flags of the command line: each one's names, its type and its line of help."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from easycompress.core.errors import BadInput

Text = Optional[str]  # noqa: UP045 - typer reads annotations on Python 3.10
Flag = Optional[bool]  # noqa: UP045
Number = Optional[int]  # noqa: UP045


def option(*names: str, help: str) -> Any:  # noqa: A002, ANN401 - typer's own word and type
    """Return an option whose help shows no default: easycompress.toml may hold another."""
    return typer.Option(*names, help=help, show_default=False)


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help=".pt2, .onnx, a Hugging Face folder, or a state dict (.safetensors, .pt) with --factory",
    ),
]
Factory = Annotated[Text, option("--factory", help="file.py:function, package.module:function or torchvision:resnet18")]
Data = Annotated[
    Text,
    option("--data", help="digits, mnist, file.npz, a folder of class folders, parquet/csv/tsv/json, file.py:function"),
]
Columns = Annotated[Text, option("--columns", help="of a table, inputs and label: text,label (names a tsv's in order)")]
Shape = Annotated[Text, option("--shape", help="without data: one sample's shape, e.g. 3,224,224")]
Mean = Annotated[Text, option("--mean", help="per-channel mean of images scaled to 0..1, e.g. 0.49,0.48,0.45")]
Std = Annotated[Text, option("--std", help="per-channel standard deviation")]
Augment = Annotated[Text, option("--augment", help="none (default), flip, flip-crop or file.py:function")]
MetricFlag = Annotated[
    Text,
    option("--metric", help="accuracy, f1, squad-f1, perplexity, miou, map, mse, ... (by data), or file.py:function"),
]
Loss = Annotated[Text, option("--loss", help="cross-entropy, mse, mae, cosine or file.py:function")]
Objective = Annotated[Text, option("--objective", help="size (default), latency, compute or energy")]
TargetFlag = Annotated[Text, option("--target", help="10x, 90%, 120KB, 3ms, 40MMACs or max")]
MaxDrop = Annotated[Text, option("--max-drop", help="1% (percentage points), 1%rel (of the baseline) or 0.5")]
MinQuality = Annotated[Text, option("--min-quality", help="the floor as a level, e.g. 98%")]
Format = Annotated[Text, option("--format", help="onnx (default), or packed: the smallest file, for transport")]
BudgetFlag = Annotated[Text, option("--budget", help="20min (default), 90s, 2h, 30ep, or none for no training")]
Backend = Annotated[Text, option("--backend", help="cpu (default) or gpu: where the result will run")]
Batch = Annotated[Number, option("--batch", help="the batch size that latency is judged at (default 1)")]
Threads = Annotated[Number, option("--threads", help="threads that latency is judged at (default: physical cores)")]
Certify = Annotated[
    Flag, typer.Option("--certify/--no-certify", help="hold the floor at 95 % confidence", show_default=False)
]
Seed = Annotated[Number, option("--seed", help="fixes all randomness (default 0)")]
SplitSeed = Annotated[Number, option("--split-seed", help="fixes how the data are split (default: as --seed)")]
Repeats = Annotated[Number, option("--repeats", help="seeds that share the budget; the spread is in the report")]
Search = Annotated[
    Text, option("--search", help="first try other settings of what is trained: 20 (trials) or 10min; default: none")
]
TrustPickle = Annotated[
    Flag, typer.Option("--trust-pickle", help="unpickle MODEL, which can run any code", show_default=False)
]
Force = Annotated[
    Flag, typer.Option("--force", help="go on where easycompress refuses and says so", show_default=False)
]
Recipe = Annotated[Text, option("--recipe", help="replay the recipe.yaml of a finished run")]
Out = Annotated[Text, option("-o", "--out", help="output folder (default: MODEL's name + -easycompress)")]
Also = Annotated[Text, option("--also", help="further outputs: pt2 (an exported program), hf (a pretrained folder)")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with an interrupted run")]
Quiet = Annotated[bool, typer.Option("--quiet", help="print the verdict only")]
Json = Annotated[bool, typer.Option("--json", help="print the report as JSON and nothing else")]


def numbers(flag: str, text: str) -> tuple[float, ...]:
    """Return what a flag lists between commas. Raises BadInput where that is no numbers."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise BadInput(f"{flag} {text}: not numbers; write one a channel, such as 0.49,0.48,0.45") from None


def given_of(values: dict[str, Any]) -> dict[str, Any]:
    """Return the flags given on the line, of a command's local variables, under the names of the Python keywords."""
    skipped = {"model", "resume", "quiet", "json_"}
    flags = {name.rstrip("_"): value for name, value in values.items() if name not in skipped and value is not None}
    for name in ("mean", "std"):
        if name in flags:
            flags[name] = numbers(f"--{name}", flags[name])
    return flags
