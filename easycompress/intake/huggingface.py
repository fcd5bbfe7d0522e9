"""A Hugging Face folder -> its model, and the tokenizer or image processor beside it. Nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from easycompress.core.errors import BadInput, one_line
from easycompress.core.plain import read_json_text
from easycompress.core.quiet import quiet
from easycompress.intake.hf_checks import check_folder, without_network

if TYPE_CHECKING:
    from torch import nn

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model",
    "sentencepiece.bpe.model",
)  # fmt: skip
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")

PIXELS, SOUNDS = ("pixel_values",), ("input_values", "input_features")
"""What models call their pictures and their sounds."""

MOST_NAMES = 3
"""Missing weights that an error text lists."""


class Pretrained(NamedTuple):
    """What a folder holds: the module (float32, evaluation mode), the bytes of its weights, notes, the processor."""

    model: nn.Module
    checkpoint_bytes: int
    notes: tuple[str, ...]
    processor: object | None


def load_folder(path: Path, *, trust_pickle: bool) -> Pretrained:
    """Read config.json, the weights (safetensors; .bin as plain tensors) and the processor of a folder.

    The class is the one that the configuration names, looked up in transformers: code in the folder is never run.
    Raises BadInput in one line for no or a damaged configuration, an architecture that transformers doesn't have, no
    weights or such as don't fit, a tokenizer of a larger vocabulary than the model's, a label map that doesn't fit.
    """
    config = _read_config(path)
    try:
        import transformers  # noqa: PLC0415 - an extra that takes seconds to import, and only this form needs it
    except ImportError as error:
        raise BadInput(f"{path}: a Hugging Face folder needs transformers; pip install transformers") from error

    name = str((config.get("architectures") or [""])[0])
    found = getattr(transformers, name, None) if name else None
    if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
        _refuse_class(path, name, config, transformers.__version__)
    check_folder(path, config)
    _check_labels(path, config)
    weights = _weight_files(path)
    with quiet("transformers"), without_network():
        model = _load(found, path, weights, trust_pickle=trust_pickle)
        processor = _processor(path, transformers, str(getattr(model, "main_input_name", "")))
    _check_vocabulary(path, model, processor)
    if getattr(model.config, "use_cache", None):
        model.config.use_cache = False  # what inference by the token keeps is no answer, and can't be exported
    if getattr(model.config, "pad_token_id", 0) is None:
        # Decoders that classify find a text's last token by it.
        model.config.pad_token_id = getattr(processor, "pad_token_id", None)
    size = sum(file.stat().st_size for file in weights)
    notes = []
    if str(config.get("dtype", config.get("torch_dtype"))) in ("float16", "bfloat16"):
        notes.append(f"the checkpoint is stored in half precision ({size} bytes) and was upcast to float32")
    return Pretrained(model.float().eval(), size, tuple(notes), processor)


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        raise BadInput(
            f"{path}: is a folder without config.json; give a Hugging Face folder, or a .safetensors or .pt file with "
            "--factory"
        )
    try:
        config = read_json_text(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise BadInput(f"{file}: not valid JSON ({one_line(error, 120)}); save or download it again") from error
    if not isinstance(config, dict):
        raise BadInput(f"{file}: holds no settings; save the model by save_pretrained")
    return config


def _refuse_class(path: Path, name: str, config: dict[str, Any], version: str) -> None:
    if not name:
        raise BadInput(f"{path}/config.json: names no architectures; save the model by save_pretrained")
    if "auto_map" in config:
        raise BadInput(
            f"{path}: {name} is defined by code in the folder (auto_map), which easycompress never runs; "
            "give a state dict with --factory, a function of your own"
        )
    raise BadInput(
        f"{path}: architecture {name} is unknown to transformers {version}; install the version that has it, or give "
        "a state dict with --factory"
    )


def _check_labels(path: Path, config: dict[str, Any]) -> None:
    """Refuse a label map that contradicts itself: what a label's number means must be beyond doubt."""
    names, numbers = config.get("id2label"), config.get("label2id")
    if not isinstance(names, dict) or not isinstance(numbers, dict):
        return
    if sorted(map(str, numbers.values())) != sorted(map(str, names)):
        raise BadInput(
            f"{path}/config.json: the label map doesn't fit: id2label has {len(names)} classes "
            f"({', '.join(map(str, names))}), label2id numbers {', '.join(map(str, numbers.values()))}; mend one"
        )


def _weight_files(path: Path) -> list[Path]:
    """Return the files that hold the weights: safetensors where there are any, else .bin."""
    files = sorted(path.glob("model*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))
    if not files:
        raise BadInput(f"{path}: no weights: no model.safetensors or pytorch_model.bin; save or download them")
    return files


def _load(found: Any, path: Path, weights: list[Path], *, trust_pickle: bool) -> Any:  # noqa: ANN401 - any architecture
    safe = weights[0].suffix == ".safetensors"
    try:
        model, info = found.from_pretrained(
            str(path),
            local_files_only=True,
            dtype=torch.float32,
            use_safetensors=safe,
            weights_only=safe or not trust_pickle,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # a damaged file fails in many ways
        hint = "" if safe or trust_pickle else ", or add --trust-pickle if you made this file"
        raise BadInput(
            f"{path}: the weights don't make a {found.__name__}: {one_line(error, 200)}; save or download them "
            f"again{hint}"
        ) from error
    for key, stored, needed in sorted(info["mismatched_keys"]):
        raise BadInput(
            f"{path}: config.json doesn't fit the weights: {key} is {tuple(stored)} there, but its settings "
            f"({_numbers_of(model.config)}) make it {tuple(needed)}; mend config.json"
        )
    missing = sorted(info["missing_keys"])
    if missing:
        more = f" and {len(missing) - MOST_NAMES} more" if len(missing) > MOST_NAMES else ""
        raise BadInput(
            f"{path}: the weights hold no {', '.join(missing[:MOST_NAMES])}{more}, which {found.__name__} needs; give "
            "the folder of the trained model"
        )
    return model


def _numbers_of(config: Any) -> str:  # noqa: ANN401 - of any architecture
    """Return the settings that the sizes of weights usually follow."""
    names = ("num_labels", "vocab_size", "hidden_size")
    return ", ".join(f"{name} {getattr(config, name)}" for name in names if getattr(config, name, None) is not None)


def processor_of(model: nn.Module) -> object | None:
    """Return what stands in the folder that a module was loaded from by its own library, None where it is in none."""
    name = getattr(model, "name_or_path", None)
    if not isinstance(name, str) or not name or not Path(name).is_dir():
        return None
    import transformers  # noqa: PLC0415 - such a module has imported it already

    with quiet("transformers"), without_network():
        return _processor(Path(name), transformers, str(getattr(model, "main_input_name", "")))


def _processor(path: Path, transformers: Any, takes: str) -> object | None:  # noqa: ANN401 - the library
    """Return the folder's tokenizer, else its image or feature processor, else None; by what the model `takes`."""
    makers: list[Any] = []
    texts = any((path / name).is_file() for name in TOKENIZER_FILES)
    others = any((path / name).is_file() for name in PROCESSOR_FILES)
    if texts and not (others and takes in (*PIXELS, *SOUNDS)):
        makers = [transformers.AutoTokenizer]
    elif others:
        makers = [transformers.AutoImageProcessor, transformers.AutoFeatureExtractor]
        makers = makers[::-1] if takes in SOUNDS else makers
    problem: Exception | None = None
    for maker in makers:
        try:
            made: object = maker.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the next may fit
            problem = problem or error
        else:
            return made
    if problem is not None:
        raise BadInput(
            f"{path}: its tokenizer or processor can't be read: {one_line(problem, 160)}; save it again by "
            "save_pretrained"
        ) from problem
    return None


def _check_vocabulary(path: Path, model: Any, processor: object) -> None:  # noqa: ANN401 - any architecture
    if not hasattr(processor, "get_vocab"):
        return
    highest = max(processor.get_vocab().values(), default=-1)
    try:
        rows = int(model.get_input_embeddings().weight.shape[0])
    except (NotImplementedError, AttributeError):
        return  # a model without an embedding of tokens
    if highest >= rows:
        raise BadInput(
            f"{path}: wrong tokenizer: it numbers {highest + 1} tokens, but the model embeds {rows}; give the one that "
            "the model was trained with"
        )
