"""A model in PyTorch, judged as a written file is: for models whose float file is too large to be run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from easycompress.core.inputs import answer, chunk_size
from easycompress.measure.runtime import BATCH, Runtime

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from easycompress.core.inputs import Inputs


class Module(Runtime):
    """A model that answers as a loaded file does. `example` is a batch of its inputs."""

    def __init__(self, model: nn.Module, example: Inputs) -> None:
        self.model = model
        self.batch = min(BATCH, chunk_size(model, example))

    def run(self, inputs: Inputs) -> np.ndarray[Any, Any]:
        """Return the answer to one batch."""
        with torch.no_grad():
            answers: np.ndarray[Any, Any] = answer(self.model, inputs).numpy()
        return answers
