"""A network separated by its layers, built from what it says of itself or from the network.

    model = separated.build(other.describe())   # fresh weights
    model = separated.halve(wan, SplitLayers(encoder=(0, 1), head=(), tail=(2,)), share=True)

The network of both halves is in models/separated/network.py, the planning in models/variants/separated.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from framelens import models
from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.models.parts.layered import UniformLayers
from framelens.models.separated.network import SeparatedNetwork
from framelens.models.separated.stated import FUSION, SplitLayers
from framelens.records import typed


@dataclass(frozen=True, kw_only=True)
class Config:
    """What rebuilds a separated network; stored beside its weights."""

    network: str
    """The file or folder of models/ that builds the network."""
    config: dict[str, Any]
    """The network's own configuration, of all its layers."""
    encoder: tuple[int, ...]
    head: tuple[int, ...]
    tail: tuple[int, ...]
    fusion: str = FUSION
    share: bool = False
    """Whether encoder and decoder hold the same tensors."""

    def __post_init__(self):
        if self.fusion != FUSION:
            raise ValueError(f"halves of a network have fusion {FUSION}, got {self.fusion!r}")

    @property
    def layers(self) -> SplitLayers:
        """The layers of each part."""
        return SplitLayers(self.encoder, self.head, self.tail)


def build(config: Config | Mapping[str, Any]) -> SeparatedNetwork:
    """The network with freshly initialised weights; ValueError if its halves do not fit their network."""
    config = config if isinstance(config, Config) else typed.build(Config, config)
    known = [name for name in models.buildable() if models.network(name).__name__ != __name__]
    if config.network not in known:
        raise ValueError(f"halves of {config.network!r} cannot be built; supported are {', '.join(known)}")
    return halve(models.network(config.network).build(config.config), config.layers, config.share)


def halve(network: CausalDiffuser, layers: SplitLayers, share: bool) -> SeparatedNetwork:
    """Encoder and decoder of these layers; weights are copies or, with `share`, the network's own.

    ValueError for layers that do not fit, and for networks whose layers cannot be left out.
    """
    require_layers(network)
    layers.check(network.geometry.layers)
    assert isinstance(network, UniformLayers)
    first, last = (
        network.with_layers(list(own), share) for own in (layers.encoder, layers.head + layers.tail)
    )
    return SeparatedNetwork(first, last, layers, share).train(first.training)


def require_layers(network: CausalDiffuser) -> None:
    """ValueError for a network whose layers cannot be left out."""
    if not isinstance(network, UniformLayers) or traits(network).stack is None:
        raise ValueError(f"a {type(network).__name__} cannot be separated: layers cannot be left out of it")
