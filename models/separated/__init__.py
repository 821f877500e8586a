"""A network separated by its layers, built from what it says of itself or from the network.

    model = separated.build(other.describe())   # fresh weights
    model = separated.halve(wan, SplitLayers(encoder=(0, 1), head=(), tail=(2,)), How(share=True))

The network of both halves is in models/separated/network.py, the planning in models/variants/separated.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from framelens import models
from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.models.parts.layered import UniformLayers
from framelens.models.separated.network import SeparatedNetwork
from framelens.models.separated.stated import How, SplitLayers
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
    fusion: str = How.fusion
    share: bool = How.share
    query: str = How.query

    @property
    def how(self) -> How:
        """How the halves work together."""
        return How(self.share, self.fusion, self.query)

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
    return halve(models.network(config.network).build(config.config), config.layers, config.how)


def halve(network: CausalDiffuser, layers: SplitLayers, how: How) -> SeparatedNetwork:
    """Encoder and decoder of these layers; weights are copies or, with `share`, the network's own.

    A learned query is random. ValueError for layers that do not fit, for networks whose layers cannot
    be left out, and for a fusion that is for other networks.
    """
    require_layers(network)
    how.check(f"a {type(network).__name__}")
    layers.check(network.geometry.layers)
    assert isinstance(network, UniformLayers)
    first, last = (
        network.with_layers(list(own), how.share) for own in (layers.encoder, layers.head + layers.tail)
    )
    model, like = SeparatedNetwork(first, last, layers, how), next(first.parameters())
    model.queries.to(like.device).requires_grad_(like.requires_grad)
    return model.train(first.training)


def require_layers(network: CausalDiffuser) -> None:
    """ValueError for a network whose layers cannot be left out."""
    if not isinstance(network, UniformLayers) or traits(network).stack is None:
        raise ValueError(f"a {type(network).__name__} cannot be separated: layers cannot be left out of it")
