"""Networks, clips and checkpoints small enough for a test."""

from pathlib import Path
from typing import Any

import torch
from precision import as_default, single_precision

from framelens.diffusion.contract import PROMISES, CausalDiffuser
from framelens.models import dense
from framelens.models.loading import checkpoint as _checkpoint

SHAPE: dict[str, Any] = {
    "channels": 3, "height": 8, "width": 8, "patch": 4, "heads": 2, "d_model": 16, "rope_axes": (4, 2, 2),
    "rope_theta": 100.0,
}  # fmt: skip
"""Frames of 3 x 8 x 8 in 4 tokens, 2 heads of width 8."""
TILES = {"channels": 3, "height": 20, "width": 20, "conditions": 5}
"""What the tile world asks of a network."""


def config(**changes: Any) -> dense.Config:
    """2 layers of that shape, unconditional."""
    return dense.Config(**SHAPE | {"layers": 2} | changes)


def model(seed: int = 0, **changes: Any) -> dense.Dense:
    """A network none of whose weights is zero, so that gates are open and every path counts."""
    with torch.random.fork_rng(devices=[]), torch.no_grad(), single_precision():
        torch.manual_seed(seed)
        network = dense.build(config(**changes))
        for name, weight in network.named_parameters():
            weight += (0.02 if name.startswith("condition") else 0.3) * torch.randn(weight.shape)
    return as_default(network.eval().requires_grad_(False))


def said(**words: Any) -> CausalDiffuser:
    """A model without a network, which says these things and can do nothing."""
    return type("Said", (), dict.fromkeys(PROMISES, _nothing) | words)()


def _nothing(*_: Any) -> None:
    raise AssertionError("this model has no network")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers, the same ones in every precision."""
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return drawn.to(torch.get_default_dtype())


def metadata(network: dense.Dense, videos: str = "tiles", frames: int = 6) -> dict[str, Any]:
    """What a training run writes beside the weights, as far as readers ask for it."""
    config = network.describe()
    return {
        "network": "dense",
        "videos": videos,
        "config": config,
        "training": {"recipe": {"frames": frames}},
    }


def checkpoint(
    path: Path, network: dense.Dense | None = None, videos: str = "tiles", frames: int = 6
) -> Path:
    """A checkpoint of that network, of one for the tile world by default."""
    network = model(**TILES) if network is None else network
    _checkpoint.write(path, network.state_dict(), metadata(network, videos, frames))
    return path
