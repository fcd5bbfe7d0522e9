"""The dependency graph: which channels of which layers live and die together.

Found by watching one run (see tracing, safe), or by torch-pruning where that sees more.
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
from easycompress.core.inputs import answer
from easycompress.measure.profile import ATTENTION_NAMES
from easycompress.pruning.importance import BATCH_NORM, Evidence, Member, scored
from easycompress.pruning.safe import SafeDependencies, safe_dependencies
from easycompress.pruning.tracing import trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from easycompress.core.inputs import Inputs
    from easycompress.pruning.importance import Role
    from easycompress.pruning.settings import Importance, Strategy

PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)

NORMS = (BATCH_NORM, nn.LayerNorm, nn.GroupNorm)

Family = Literal["convolutional", "linear", "attention"]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that must be removed together: `root` names the layer that produces them, `width` is how many.

    `scores` (width,) is each channel's importance: see importance.scored. `members` are the layers that make, read or
    scale the channels. `shortcut`: several layers make them, and a sum ties them together.
    """

    root: str
    family: Family
    width: int
    scores: Tensor
    members: tuple[Member, ...] = ()

    @property
    def shortcut(self) -> bool:
        """Tell whether the outputs of several layers share the channels, depthwise convolutions apart."""
        makers = [m for m in self.members if m.role == "makes" and getattr(m.module, "groups", 1) == 1]
        return len(makers) > 1


class PruningGraph:
    """The dependency graph of one module, which it changes when channels are removed."""

    def __init__(self, model: nn.Module, example: Inputs) -> None:
        """Trace `model` on `example` (2, ...) and put it into evaluation mode.

        Watching a run comes first. torch-pruning has its turn where channels are cut into parts, which only it follows,
        and nothing else happens that it is known to misread. The choice depends on the structure alone, so a replay
        makes the same one.
        """
        self.model = model.eval()
        self.names = {module: name for name, module in model.named_modules()}
        self.modules = dict(model.named_modules())
        self.frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
        self.obstacles: tuple[str, ...] = ()
        self.shared: tuple[str, ...] = ()
        try:
            found = trace(model, example)
            self.obstacles = tuple(sorted(found.mixed | found.cut))
            self.shared = tuple(sorted(found.shared))
            followed = self._by_gradients(example) if found.cut and not found.mixed else None
            self.tracer = "run" if followed is None else "torch-pruning"
            self.graph: Any = followed or safe_dependencies(model, example, found)
        except Exception as error:  # the tracer fails with whatever the model's forward runs into
            raise CannotCompress(
                f"structured pruning can't trace this model ({type(error).__name__}: {one_line(error, 160)})"
            ) from error

    def _by_gradients(self, example: Inputs) -> Any:  # noqa: ANN401 - torch-pruning is untyped
        """Return torch-pruning's graph, None where it fails: it was built for the networks of its examples."""
        for name in self.frozen:
            self.model.get_parameter(name).requires_grad_(True)  # noqa: FBT003 - the tracer follows gradients
        try:
            with warnings.catch_warnings(), torch.enable_grad():
                warnings.simplefilter("ignore")
                return tp.DependencyGraph().build_dependency(
                    self.model, example_inputs=example, forward_fn=answer, verbose=False
                )
        except Exception:  # noqa: BLE001 - the other tracer has what it needs by then
            return None
        finally:
            self._freeze()

    def groups(
        self, strategy: Strategy, importance: Importance, evidence: Evidence | None = None
    ) -> list[ChannelGroup]:
        """Return the groups that `strategy` may prune, in the order of the graph, scored by `importance`.

        Groups that reach the model's output are never among them, wherever they stand in the source.
        """
        found = []
        for group in self.graph.get_all_groups(root_module_types=PRUNABLE):
            module = group[0].dep.target.module
            if self._reaches_output(group) or self._is_grouped(group):
                continue
            family = family_of(self.names[module], module)
            width = len(group[0].idxs)
            members = self._members(group)
            if strategy in ("global", family) and members:
                found.append(ChannelGroup(self.names[module], family, width, torch.ones(width), members))
        return scored(found, importance, evidence or Evidence())

    def _members(self, group: Any) -> tuple[Member, ...]:  # noqa: ANN401 - torch-pruning is untyped
        found = []
        for item in group:
            module = item.dep.target.module
            role: Role = "reads" if self.graph.is_in_channel_pruning_fn(item.dep.handler) else "makes"
            if not isinstance(module, PRUNABLE):
                role = "scales"
            elif getattr(module, "groups", 1) > 1:
                role = "makes"  # depthwise: what goes in comes out
            known = module in self.names and not any(channel is None for channel in item.root_idxs)
            if known and (role != "scales" or isinstance(module, NORMS)):
                found.append(
                    Member(self.names[module], module, role, torch.tensor(item.idxs), torch.tensor(item.root_idxs))
                )
        return tuple(found)

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

    def remove_all(self, removals: Sequence[tuple[str, list[int]]]) -> None:
        """Remove channels of several groups, as `remove` does of each, but every layer is rewritten only once.

        The places are those before any of them is gone: groups share no channels.
        """
        if isinstance(self.graph, SafeDependencies):
            self.graph.remove(dict(removals))
            self._freeze()
            return
        for root, channels in removals:
            self.remove(root, channels)

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


def family_of(name: str, module: nn.Module) -> Family:
    """Return the family of a prunable layer, as the profile tells them apart."""
    if not isinstance(module, nn.Linear):
        return "convolutional"
    inside = any(word in part.lower() for part in name.split(".") for word in ATTENTION_NAMES)
    return "attention" if inside else "linear"
