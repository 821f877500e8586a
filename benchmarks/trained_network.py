"""A network in training, its optimiser, and a clip of noise to train it on.

step = TrainedNetwork(dense.build(config), config, frames=8, device="cpu")
step.advance()                                                 # the loss before one optimiser step
"""

import torch
from torch import Tensor

from framelens.diffusion.contract import CausalDiffuser, module_of
from framelens.diffusion.loss import flow_matching_loss
from framelens.models.parts.config import StackConfig


class TrainedNetwork:
    """AdamW on teacher-forced clips of noise; `draws` noise levels of each clip, for a separated network."""

    def __init__(
        self,
        model: CausalDiffuser,
        config: StackConfig,
        frames: int,
        device: str,
        batch: int = 1,
        draws: int = 1,
    ):
        self.on_gpu = device.startswith("cuda")
        self.model, module = model, module_of(model).train().requires_grad_(True)
        with torch.device(device):
            image = (config.channels, config.height, config.width)
            self.clean = torch.randn(batch, frames, *image)
            self.noise = torch.randn(batch, frames * draws, *image)
            self.sigma = torch.rand(batch, frames * draws)
            self.cond = self._condition(config, batch, frames)
        self.optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=self.on_gpu)

    def _condition(self, config: StackConfig, batch: int, frames: int) -> Tensor | None:
        if config.text_tokens:
            return torch.randn(batch, config.text_tokens, config.text_width)
        return torch.zeros(batch, frames, dtype=torch.long) if config.conditions else None

    def advance(self) -> Tensor:
        """The loss before one step."""
        with torch.autocast("cuda", torch.bfloat16, enabled=self.on_gpu):
            loss = flow_matching_loss(self.model, self.clean, self.noise, self.sigma, self.cond).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()
