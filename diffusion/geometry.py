"""The shape of a model's videos and of its token grid."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """The shape of a model's videos and of its token grid."""

    frames_per_chunk: int
    channels: int
    height: int
    width: int
    patch: int
    layers: int
    heads: int
    d_model: int

    @property
    def rows(self) -> int:
        return self.height // self.patch

    @property
    def cols(self) -> int:
        return self.width // self.patch

    @property
    def tokens_per_frame(self) -> int:
        return self.rows * self.cols

    @property
    def tokens_per_chunk(self) -> int:
        return self.frames_per_chunk * self.tokens_per_frame
