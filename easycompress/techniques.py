"""Every technique, looked up by the type of its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from easycompress.core.errors import BadInput
from easycompress.distillation.technique import Distiller
from easycompress.lc.ranks.technique import RankReducer
from easycompress.lc.technique import LearningCompressor
from easycompress.lc.tuned import TunedQuantizer
from easycompress.lc.untrained import EntropyQuantizer
from easycompress.pruning.depth.technique import DepthPruner
from easycompress.pruning.technique import StructuredPruner
from easycompress.pruning.transformers.technique import TransformerPruner
from easycompress.pruning.unstructured.technique import UnstructuredPruner
from easycompress.quantization.dynamic import DynamicQuantizer
from easycompress.quantization.half import HalfPrecision
from easycompress.quantization.qat import QatQuantizer
from easycompress.quantization.technique import StaticQuantizer
from easycompress.quantization.weightonly import BlockQuantizer

if TYPE_CHECKING:
    from easycompress.core.plan import Action
    from easycompress.technique import Technique

TECHNIQUES: tuple[Technique[Any], ...] = (
    StructuredPruner(),
    DepthPruner(),
    TransformerPruner(),
    UnstructuredPruner(),
    RankReducer(),
    Distiller(),
    QatQuantizer(),
    StaticQuantizer(),
    DynamicQuantizer(),
    BlockQuantizer(),
    HalfPrecision(),
    EntropyQuantizer(),
    TunedQuantizer(),
    LearningCompressor(),
)


def technique_for(action: Action) -> Technique[Any]:
    """Return the technique whose settings `action` is."""
    return next(t for t in TECHNIQUES if t.settings is type(action))


def technique_named(name: str) -> Technique[Any]:
    """Return the technique of that name. Raises BadInput with the names that exist."""
    for technique in TECHNIQUES:
        if technique.name == name:
            return technique
    raise BadInput(f"action {name!r}: no such technique; there are {', '.join(t.name for t in TECHNIQUES)}")


def parse_action(data: dict[str, Any]) -> Action:
    """Return the action that a recipe's mapping describes. Raises BadInput naming the wrong setting."""
    settings = technique_named(str(data.get("kind"))).settings
    try:
        return settings.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"recipe: {data['kind']}: {where}: {first['msg']}") from error
