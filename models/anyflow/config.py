"""The sizes of an AnyFlow network and of its inputs."""

from dataclasses import dataclass
from typing import Any, ClassVar

from framelens.models.anyflow.past import Layout


@dataclass(frozen=True, kw_only=True)
class Config:
    """The sizes of a network and of its inputs."""

    shared_modulation: ClassVar[bool] = True
    """All blocks share one projection of the time embedding, and each adds its own table."""
    channels: int
    height: int
    width: int
    patch: int
    far_patch: int
    """Side of a patch in compressed frames, in latent pixels."""
    layers: int
    heads: int
    d_model: int
    mlp_width: int
    text_tokens: int
    text_width: int
    frames_per_chunk: int
    full_chunks: int
    """Uncompressed chunks that a denoising pass sees, its own included; older chunks are compressed."""
    frequencies: int = 256
    """Width of the sinusoid that embeds a noise level."""
    epsilon: float = 1e-6
    text_norm: bool = True
    """Whether the stream is normalised before attention to the prompt."""
    rope_frames: int = 1024
    """Frames, rows and columns that have a rotary position."""
    gate: float = 0.25
    """Share of the embedding of the level at which a step ends."""
    ends: str = "r"
    """Whether the network is given that level ("r"), or the length of the step ("t-r")."""
    conditions: int = 0
    window: int | None = None
    sink: int = 0

    @property
    def layout(self) -> Layout:
        """The order of tokens in a pass."""
        tokens, far = ((self.height // p) * (self.width // p) for p in (self.patch, self.far_patch))
        return Layout(self.frames_per_chunk, tokens, far, self.full_chunks)

    def __post_init__(self):
        height, width, far = self.height, self.width, self.far_patch
        if min(height, width) < far or height % self.patch or width % self.patch:
            raise ValueError(
                f"latents of {height} x {width} must be multiples of {self.patch} and at least {far}"
            )
        if min(self.frames_per_chunk, self.text_tokens) < 1:
            raise ValueError(
                f"frames_per_chunk and text_tokens must be 1 or more, got {self.frames_per_chunk} and "
                f"{self.text_tokens}"
            )
        if self.full_chunks < 2:
            raise ValueError(f"full_chunk_limit is {self.full_chunks}, expected 2 or more")

    def for_diffusers(self) -> dict[str, Any]:
        """The arguments of the stock class in diffusers."""
        return {
            "patch_size": (1, self.patch, self.patch),
            "compressed_patch_size": (1, self.far_patch, self.far_patch),
            "full_chunk_limit": self.full_chunks,
            "num_attention_heads": self.heads,
            "attention_head_dim": self.d_model // self.heads,
            "in_channels": self.channels,
            "out_channels": self.channels,
            "text_dim": self.text_width,
            "freq_dim": self.frequencies,
            "ffn_dim": self.mlp_width,
            "num_layers": self.layers,
            "cross_attn_norm": self.text_norm,
            "eps": self.epsilon,
            "rope_max_seq_len": self.rope_frames,
            "gate_value": self.gate,
            "deltatime_type": self.ends,
        }
