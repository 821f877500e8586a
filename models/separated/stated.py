"""What a separated network says of itself: what it has of its network, sizes, and what rebuilds it."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from framelens.diffusion.contract import Traits, traits
from framelens.diffusion.schedule import Sampling
from framelens.diffusion.source import Source
from framelens.models.separated.reading import FUSION, FUSIONS, QUERIES

HANDED_ON = ("takes", "null_condition", "latent", "density", "device", "keeps_float32", "no_split")
"""Traits that a separated network has of the one it was made from."""
COUNTED = "channels height width patch heads d_model mlp_width conditions text_tokens text_width window sink"
"""Sizes of the network that decide the cost of its halves, too."""


@dataclass(frozen=True)
class SplitLayers:
    """The numbers of a network's layers in the encoder, and in the decoder before and after the features."""

    encoder: tuple[int, ...]
    head: tuple[int, ...]
    tail: tuple[int, ...]

    def check(self, depth: int) -> None:
        """ValueError unless the encoder has the first layers, the head fewer of them, the tail the last."""
        encoder, head, tail = list(self.encoder), list(self.head), list(self.tail)
        fits = encoder == [*range(len(encoder))] and head == [*range(len(head))] and len(head) < len(encoder)
        fits = fits and tail == [*range(depth - len(tail), depth)] and len(encoder) <= depth
        if not fits or not head + tail:
            raise ValueError(
                f"of {depth} layers the encoder takes the first, the head fewer first ones, the tail the "
                f"last; got encoder {encoder}, head {head}, tail {tail}"
            )


@dataclass(frozen=True)
class How:
    """In what way the halves of a separated network work together."""

    share: bool = False
    """Whether encoder and decoder hold the same tensors."""
    fusion: str = FUSION
    """How the decoder reads the encoder's features (FUSIONS)."""
    query: str = "noise"
    """What the encoder asks for the next chunk with (QUERIES)."""

    def check(self, what: str) -> None:
        """ValueError for a fusion or a query that the layers of `what` cannot have."""
        if self.fusion not in FUSIONS:
            reason = "those of an SCD beside them need weights of their own between its stacks"
            raise ValueError(
                f"{what} is separated with fusion {', '.join(FUSIONS)}, got {self.fusion!r}: {reason}"
            )
        if self.query not in QUERIES:
            raise ValueError(f"no query is called {self.query!r}; there are {', '.join(QUERIES)}")


class Stated:
    """The part of a separated network that answers for it."""

    encoder: Any
    decoder: Any
    layers: SplitLayers
    how: How
    _source: Source

    @property
    def halves(self) -> tuple[Any, Any]:
        """Encoder and decoder."""
        return self.encoder, self.decoder

    @property
    def reads_past(self) -> Any:
        """The half whose configuration bounds the history in view."""
        return self.encoder

    @property
    def source(self) -> Source:
        """Where it came from; both halves have it, for it names the kind of conditions."""
        return self._source

    @source.setter
    def source(self, source: Source) -> None:
        self._source = source
        for half in self.halves:
            half.source = source

    @property
    def sampling(self) -> Sampling | None:
        """How it is meant to be sampled: as the network."""
        return traits(self.encoder).sampling

    @sampling.setter
    def sampling(self, sampling: Sampling) -> None:
        for half in self.halves:
            half.sampling = sampling

    @property
    def config(self) -> Any:
        """The sizes by which cost is counted; None if the network states none."""
        theirs = traits(self.encoder).config
        if theirs is None or not all(hasattr(theirs, name) for name in COUNTED.split()):
            return None
        sizes = {name: getattr(theirs, name) for name in COUNTED.split()}
        halves = {"encoder_layers": len(self.encoder.blocks), "decoder_layers": len(self.decoder.blocks)}
        shared = getattr(theirs, "shared_modulation", False)
        how = {"fusion": self.how.fusion, "query": self.how.query, "shared_modulation": shared}
        return SimpleNamespace(**sizes, **halves, **how)

    @property
    def describe(self) -> Callable[[], dict[str, Any]] | None:
        """Gives what rebuilds it, as plain values; None for halves of a network that is not of framelens."""
        theirs, file = traits(self.encoder).describe, _file_of(self.encoder)
        if theirs is None or file is None:
            return None
        layers = {name: list(numbers) for name, numbers in vars(self.layers).items()}
        how = layers | vars(self.how)
        return lambda: {"network": file, "config": theirs()} | how

    @property
    def handed_on(self) -> dict[str, Any]:
        """The traits of the network that are this one's, too."""
        own: Traits = traits(self.encoder)
        return {name: getattr(own, name) for name in HANDED_ON}


def _file_of(network: object) -> str | None:
    """The file or folder of models/ in which the network's class is; None for a class of others."""
    _, found, inside = type(network).__module__.partition("framelens.models.")
    return inside.partition(".")[0] if found else None
