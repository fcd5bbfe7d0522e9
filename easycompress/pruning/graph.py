"""The dependency graph: which channels of which layers live and die together. An adapter around torch-pruning.

Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch_pruning as tp
from torch import nn

from easycompress.core.errors import CannotCompress, one_line

if TYPE_CHECKING:
    from torch import Tensor

    from easycompress.pruning.settings import Importance, Strategy

PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)

Family = Literal["convolutional", "linear"]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that must be removed together: `root` names the layer that produces them, `width` is how many.

    `scores` (width,) is each channel's importance relative to the group's mean.
    """

    root: str
    family: Family
    width: int
    scores: Tensor


class PruningGraph:
    """The dependency graph of one module, which it changes when channels are removed."""

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self.model = model
        self.names = {module: name for name, module in model.named_modules()}
        self.modules = dict(model.named_modules())
        self.frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
        for name in self.frozen:
            model.get_parameter(name).requires_grad_(True)  # noqa: FBT003 - the tracer follows gradients
        try:
            with warnings.catch_warnings(), torch.enable_grad():
                warnings.simplefilter("ignore")
                self.graph = tp.DependencyGraph().build_dependency(model, example_inputs=example, verbose=False)
        except Exception as error:  # the tracer fails with whatever the model's forward runs into
            raise CannotCompress(
                f"structured pruning can't trace this model ({type(error).__name__}: {one_line(error, 160)})"
            ) from error
        finally:
            self._freeze()

    def groups(self, strategy: Strategy, importance: Importance) -> list[ChannelGroup]:
        """Return the groups that `strategy` may prune, in the order of the graph, scored by `importance`.

        Groups that reach the model's output are never among them, wherever they stand in the source.
        """
        found = []
        score = _importance(importance)
        for group in self.graph.get_all_groups(root_module_types=PRUNABLE):
            module = group[0].dep.target.module
            if self._reaches_output(group) or self._is_grouped(group):
                continue
            family: Family = "linear" if isinstance(module, nn.Linear) else "convolutional"
            if strategy not in ("global", family):
                continue
            raw = score(group)
            if raw is None:
                continue
            raw = raw.detach().float()
            mean = raw.mean()
            scores = raw / mean if mean > 0 else torch.ones_like(raw)
            found.append(ChannelGroup(self.names[module], family, len(raw), scores))
        return found

    def remove(self, root: str, channels: list[int]) -> None:
        """Remove `channels` (places in the current width) of the group whose root layer is `root`, everywhere."""
        if not channels:
            return
        module = self.modules[root]
        pruner = self.graph.get_pruner_of_module(module)
        group = self.graph.get_pruning_group(module, pruner.prune_out_channels, channels)
        if not self.graph.check_pruning_group(group):
            raise CannotCompress(f"layer {root}: removing {len(channels)} of its channels would leave none")
        group.prune()
        self._freeze()  # pruning replaces parameters by trainable ones

    def _freeze(self) -> None:
        for name in self.frozen:
            self.model.get_parameter(name).requires_grad_(False)  # noqa: FBT003 - torch's own signature

    def _reaches_output(self, group: Any) -> bool:  # noqa: ANN401 - torch-pruning is untyped
        for dep, _ in group:
            consumer = self.graph.is_in_channel_pruning_fn(dep.handler) and isinstance(dep.target.module, PRUNABLE)
            if not consumer and not dep.target.outputs:
                return True
        return False

    @staticmethod
    def _is_grouped(group: Any) -> bool:  # noqa: ANN401 - torch-pruning is untyped
        """Tell whether a grouped convolution (depthwise apart) ties channels in blocks, which are left alone."""
        for dep, _ in group:
            groups = getattr(dep.target.module, "groups", 1)
            if isinstance(groups, int) and groups > 1 and groups != dep.target.module.in_channels:
                return True
        return False


def _importance(name: Importance) -> Any:  # noqa: ANN401 - torch-pruning is untyped
    if name == "l1":
        layers = [nn.modules.conv._ConvNd, nn.Linear]  # noqa: SLF001 - torch-pruning's own default lists it
        return tp.importance.GroupMagnitudeImportance(p=1, normalizer=None, target_types=layers)
    return tp.importance.GroupMagnitudeImportance(p=2, normalizer=None)
