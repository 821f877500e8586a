"""SkyReels-V2, trained by diffusion forcing: Wan with a separate noise level for every frame.

    model = models.load("Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers", frames_per_chunk=5)

It has Wan's tensors and two more that embed the frame rate; timesteps are embedded in float64. The stock
network sets chunks by num_frame_per_block. There, 1 means that all frames see each other (`bidirectional`, or
`whole`, is that pass); from 2 on it is causal by chunk, as framelens always runs it. Finished frames are read
at timestep 0, as the pipeline does with addnoise_condition=0. Its asynchronous schedules, which denoise
several chunks together, are not supported.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from framelens.diffusion.schedule import Sampling
from framelens.models.loading.checkpoint import Checkpoint
from framelens.models.wan.assumed import MANY_STEPS, scheduled_shift
from framelens.models.wan.config import WanConfig, config_of
from framelens.models.wan.names import SKYREELS_MARK, is_wan_like
from framelens.models.wan.network import Wan
from framelens.models.wan.read import stock, with_our_names
from framelens.records.extras import extra

CLASSES: tuple[str, ...] = ("SkyReelsV2Transformer3DModel",)
DEFAULTS: dict[str, Any] = {
    "height": 68,
    "width": 120,
    "frames_per_chunk": None,
    "text_tokens": 512,
    "heads": None,
    "fps": 24,
}
"""Settings that a checkpoint does not store. Height and width of latents (544 x 960 pixels); frames per chunk
(None: the configuration's num_frame_per_block, else 1); tokens of a padded prompt; heads if no config.json
states them (None: heads are 128 wide); the frame rate that the network receives, 16 or 24."""
FRAME_RATES = (16, 24)
SHIFT = 8.0


def recognises(names: Collection[str]) -> bool:
    """Whether these are the tensor names of a SkyReels network that embeds the frame rate."""
    return is_wan_like(names) and SKYREELS_MARK in names


def read(checkpoint: Checkpoint, options: dict[str, Any]) -> tuple["SkyReels", dict[str, Any]]:
    """The network of a SkyReels checkpoint, and its metadata; ValueError for other networks."""
    if options["fps"] not in FRAME_RATES:
        raise ValueError(f"fps must be 16 or 24 frames per second, got {options['fps']}")
    with extra("families"):
        from diffusers.models.transformers.transformer_skyreels_v2 import SkyReelsV2Transformer3DModel

    checkpoint = with_our_names(checkpoint)
    block = (checkpoint.config or {}).get("num_frame_per_block", 1)
    chunk = block if options["frames_per_chunk"] is None else options["frames_per_chunk"]
    plain = config_of(checkpoint, options, chunk, is_causal=block > 1)
    fps = options["fps"] if SKYREELS_MARK in checkpoint.weights else None
    config = Config(**plain.values(), fps=fps)
    network = stock(SkyReelsV2Transformer3DModel, config.for_diffusers(), checkpoint)
    sampling = Sampling(MANY_STEPS, scheduled_shift(checkpoint.path, SHIFT))
    model = SkyReels(network, config, sampling)
    assumed = {"sampling": sampling.describe(), "fps": fps}
    about = {"network": "skyreels", "config": model.describe(), "origin": CLASSES[0], "assumed": assumed}
    return model, about


@dataclass(frozen=True, kw_only=True)
class Config(WanConfig):
    """The configuration of a Wan network that may embed the frame rate."""

    fps: int | None = None
    """Frames per second, if the network embeds them."""

    def __post_init__(self):
        super().__post_init__()
        if self.fps is not None and self.fps not in FRAME_RATES:
            raise ValueError(f"fps must be 16 or 24 frames per second, got {self.fps}")

    def for_diffusers(self) -> dict[str, Any]:
        """The arguments of the stock class in diffusers."""
        return super().for_diffusers() | {"inject_sample_info": self.fps is not None}


def build(config: Config | Mapping[str, Any]) -> "SkyReels":
    """The network with freshly initialised weights."""
    chosen = config if isinstance(config, Config) else Config.from_values(config)
    with extra("families"):
        from diffusers.models.transformers.transformer_skyreels_v2 import SkyReelsV2Transformer3DModel

    stock = SkyReelsV2Transformer3DModel(**chosen.for_diffusers())
    return SkyReels(stock, chosen, Sampling(MANY_STEPS, SHIFT))


class SkyReels(Wan):
    """A SkyReels-V2 transformer on latents [b f c h w]; cond is the prompts' embeddings [b t w]."""

    def __init__(self, stock: Any, config: Config, sampling: Sampling):
        super().__init__(stock, config, sampling)
        self.fps = config.fps
        if config.fps is not None:
            self.fps_embedding, self.fps_projection = stock.fps_embedding, stock.fps_projection

    def _times(
        self, timestep: Float[Tensor, "b f"]
    ) -> tuple[Float[Tensor, "b f d"], Float[Tensor, "b f six_d"]]:
        """The embedding of timesteps, and all blocks' scales, shifts and gates plus the frame rate's."""
        embedding, projected = super()._times(timestep)
        if self.fps is None:
            return embedding, projected
        rate = torch.tensor([FRAME_RATES.index(self.fps)], device=timestep.device)
        return embedding, projected + self.fps_projection(self.fps_embedding(rate))
