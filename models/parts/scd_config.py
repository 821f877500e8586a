"""The configuration of a separated network, and its presets."""

from dataclasses import dataclass
from typing import Any

from framelens.models.parts.config import LATENT, TINY, WAN, StackConfig
from framelens.models.parts.fusion import FUSIONS

QUERIES = ("past", "noise", "frame", "learned")
"""Input of the encoder's last pass before a frame: the finished frame, or tokens that ask for the next."""


ASKING: dict[str, Any] = {"query": "noise", "start_token": False}
"""Settings of a network that was recomposed from a dense one: it asks for the next frame with noise."""


@dataclass(frozen=True, kw_only=True)
class Config(StackConfig):
    """The settings that rebuild a network; stored beside its weights."""

    encoder_layers: int
    decoder_layers: int
    fusion: str = "prefix"
    """How the decoder reads features (FUSIONS); `make compare` and `make scd-bench` show why prefix."""
    context_noise: float = 0.05
    """eta of equation 7: standard deviation of noise added to c in training, against exposure bias."""
    start_token: bool = True
    """Without a start token (the released code) frame 0 cannot be generated: it must be given."""
    query: str = "past"
    """Source of the features. "past": the finished frames. Else query tokens at the place of the next frame,
    which see the finished frames and are seen by none. "noise": the next frame as noise, as in a dense
    network (Bai et al. 2026, fine-tuned models). "frame": the last finished frame's embedding and a learned
    mark. "learned": the mark alone."""
    query_sigma: float = 0.8
    """In training a noise query holds the true frame at a random noise level between this one and 1."""
    query_layer: int = 0
    """The encoder's layer at which query tokens enter; finished frames pass all of its layers."""
    head: int = 0
    """Decoder layers before the place where the residual fusion adds c. In a network that starts from a dense
    one, these are the dense network's first layers and the decoder's others are its last ones."""

    @property
    def asks(self) -> bool:
        """Whether the encoder asks for the coming frame with tokens of its own."""
        return self.query != "past"

    def __post_init__(self):
        super().__post_init__()
        if self.fusion not in FUSIONS:
            raise ValueError(f"no fusion is called {self.fusion!r}; there are {', '.join(FUSIONS)}")
        layers = (self.encoder_layers, self.decoder_layers)
        if min(layers) < 1:
            raise ValueError(
                f"encoder and decoder need at least one layer each, got {layers[0]} and {layers[1]}"
            )
        if self.query not in QUERIES:
            raise ValueError(f"no query is called {self.query!r}; there are {', '.join(QUERIES)}")
        if self.asks and self.start_token:
            raise ValueError(
                f"query={self.query} needs no start token, got start_token=true: set start_token=false"
            )
        if not 0 < self.query_sigma <= 1:
            raise ValueError(f"query_sigma is a noise level in (0, 1], got {self.query_sigma}")
        if not 0 <= self.query_layer < (layers[0] if self.asks else 1):
            raise ValueError(
                f"query_layer is a layer of an encoder that asks, here 0 to {layers[0] - 1} (with query=past "
                f"only 0), got {self.query_layer}"
            )
        most = min(layers[1], layers[0] - 1) if self.fusion == "residual" else layers[1]
        if not 0 <= self.head <= most:
            raise ValueError(
                f"with {layers[0]} + {layers[1]} layers and fusion {self.fusion} the decoder's head is 0 to "
                f"{most} layers, got {self.head}"
            )


PRESETS = {
    "tiny": Config(encoder_layers=8, decoder_layers=4, **TINY),
    "scd-b": Config(encoder_layers=8, decoder_layers=4, heads=12, d_model=768, **LATENT),
    "scd-m": Config(encoder_layers=8, decoder_layers=4, heads=16, d_model=1024, **LATENT),
    "wan-1.3b": Config(encoder_layers=25, decoder_layers=10, **WAN),
}
