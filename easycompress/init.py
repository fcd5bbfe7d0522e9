"""`easycompress init`: a file of settings and, where the case needs code, a commented task.py to fill in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easycompress.core.errors import BadInput
from easycompress.core.files import write_text
from easycompress.core.goal import parse_budget, parse_objective, parse_target
from easycompress.intake.config import NAME, NAMES
from easycompress.starter import DATA, FACTORY, HEAD, LOSS, METRICS, SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TASK = "task.py"

PERCENTAGES = ("accuracy", "token-f1", "squad-f1", "miou")
"""Metrics in percent: one percentage point says something of them."""

MODEL_FILES = (".safetensors", ".pt", ".pth", ".bin", ".pt2", ".onnx")
NEEDS_FACTORY = (".safetensors", ".pt", ".pth", ".bin")
"""Files of weights alone: the module that they belong to is made by a function."""


@dataclass(frozen=True)
class Case:
    """What a user's case consists of. `factory`, `data` None: written into task.py, to be filled in."""

    model: Path
    kind: str
    factory: str | None
    data: str | None
    objective: str
    target: str
    max_drop: str
    budget: str

    @property
    def needs_factory(self) -> bool:
        """Whether the model's file holds weights alone and nobody has said which module they belong to."""
        return self.factory is None and self.model.suffix in NEEDS_FACTORY


def find_model(folder: Path) -> Path | None:
    """Return the one file or Hugging Face folder in `folder` that looks like a model; None without or with several."""
    if (folder / "config.json").is_file():
        return folder
    children = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [p for p in children if p.suffix in MODEL_FILES or (p.is_dir() and (p / "config.json").is_file())]
    return found[0] if len(found) == 1 else None


def guess_kind(model: Path) -> str:
    """Return the task that a Hugging Face folder's architecture names, else image classification."""
    try:
        names = json.loads((model / "config.json").read_text()).get("architectures") or [""]
    except (OSError, ValueError, AttributeError):
        return "image-classification"
    endings: dict[str, str] = {
        "ForSequenceClassification": "text-classification",
        "ForTokenClassification": "token-classification",
        "ForQuestionAnswering": "question-answering",
        "ForCausalLM": "language-modelling",
        "LMHeadModel": "language-modelling",
        "ForSemanticSegmentation": "segmentation",
    }
    return next((kind for ending, kind in endings.items() if str(names[0]).endswith(ending)), "image-classification")


def usual_drop(kind: str) -> str:
    """Return the floor to begin with: one point of a percentage, else one percent of the baseline."""
    return "1%" if METRICS.get(kind, ("", ""))[0] in PERCENTAGES else "1%rel"


def check_case(case: Case) -> None:
    """Raise BadInput for a case that the files would only repeat the mistakes of."""
    if not case.model.exists():
        raise BadInput(f"{case.model}: doesn't exist; name the model: easycompress init MODEL")
    if case.kind not in METRICS:
        raise BadInput(f"--task {case.kind}: unknown; use one of {', '.join(METRICS)}")
    objective = parse_objective(case.objective)
    parse_target(case.target, objective)
    parse_budget(case.budget)


def files_of(case: Case) -> dict[str, str]:
    """Return the files of a case by name: the settings and, where something is to be filled in, task.py."""
    parts = []
    lines = [
        f"# Flags of `easycompress compress {case.model.name}`. Paths are relative to here; a flag on the line wins.",
    ]
    if case.needs_factory:
        parts.append(FACTORY.format(model=case.model.name))
        lines.append(f'factory = "{TASK}:make_model"')
    elif case.factory:
        lines.append(f"factory = {json.dumps(case.factory)}")
    if case.data is None:
        parts.append(DATA.format(sample=SAMPLES[case.kind]))
        lines.append(f'data = "{TASK}:make_data"')
    else:
        lines.append(f"data = {json.dumps(case.data)}")
    name, why = METRICS[case.kind]
    if name is None:
        parts.append(LOSS)
        lines += [f'metric = "{TASK}:score"  # {why}', f'loss = "{TASK}:loss"']
    else:
        lines.append(f'metric = "{name}"  # {why}')
    lines += [
        f"objective = {json.dumps(case.objective)}  # size, latency, compute or energy",
        f"target = {json.dumps(case.target)}  # a ratio (10x), a reduction (90%), an amount (120KB, 3ms) or max",
        f"max_drop = {json.dumps(case.max_drop)}  # 1% is one point; 1%rel of the baseline for other metrics",
        f"budget = {json.dumps(case.budget)}  # 20min, 2h, 30ep (epochs), or none for no training",
    ]
    if case.kind in ("image-classification", "segmentation"):
        lines += [
            "# mean = [0.485, 0.456, 0.406]  # images scaled to 0..1 are normalised so, outside the model",
            "# std = [0.229, 0.224, 0.225]",
            '# augment = "flip-crop"  # of the training images: none, flip, flip-crop or file.py:function',
        ]
    found = {NAME: "\n".join(lines) + "\n"}
    if parts:
        found[TASK] = HEAD + "\n\n" + "\n\n".join(parts)
    return found


def write_case(case: Case, folder: Path, *, force: bool) -> list[Path]:
    """Write the files of a case into `folder` and return them. Raises BadInput where one is there, unless `force`."""
    check_case(case)
    files = files_of(case)
    there = [name for name in {*files, *NAMES} if (folder / name).exists()]
    if there and not force:
        raise BadInput(f"{folder / min(there)}: is there already; --force writes it anew")
    for name, text in files.items():
        write_text(folder / name, text)
    return [folder / name for name in files]


def ask_case(case: Case, ask: Callable[[str, str], str]) -> Case:
    """Return the case as the user wants it: `ask(question, default)` gives each answer."""
    kind = ask(f"what does the model do ({', '.join(METRICS)})", case.kind)
    if kind not in METRICS:
        raise BadInput(f"{kind}: unknown; use one of {', '.join(METRICS)}")
    factory = case.factory
    if case.model.suffix in NEEDS_FACTORY:
        made = ask(
            "which function makes the module (file.py:function, torchvision:name; empty: task.py is written)", ""
        )
        factory = made or None
    data = ask(
        "where is the data (a file or folder, a data set's name, file.py:function; empty: task.py is written)", ""
    )
    objective = ask("what shall shrink (size, latency, compute, energy)", case.objective)
    target = ask("by how much (10x, 90%, 120KB, 3ms, max)", case.target)
    max_drop = ask("what may be lost (1% is one percentage point, 1%rel of the baseline)", usual_drop(kind))
    budget = ask("how long may it take (20min, 2h, 30ep, none)", case.budget)
    return Case(case.model, kind, factory, data or None, objective, target, max_drop, budget)
