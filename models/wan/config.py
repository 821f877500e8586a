"""The configuration of a Wan network, read from its tensors and its config.json."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from framelens.diffusion.contract import Geometry
from framelens.models.loading.checkpoint import Checkpoint
from framelens.models.parts.config import StackConfig

HEAD_WIDTH = 128
"""Width of a head in every released Wan; a bare state dict does not store it."""
LATENT_SIZES = {16: (60, 104), 48: (44, 80)}
"""Rows and columns of the latents by their channels: 480 x 832 pixels, and 704 x 1280 for the 5B network."""
CONFIG_NAMES = {
    "layers": ("num_layers",),
    "heads": ("num_attention_heads", "num_heads"),
    "mlp_width": ("ffn_dim",),
    "channels": ("out_channels", "out_dim"),
    "taken_channels": ("in_channels", "in_dim"),
    "frequencies": ("freq_dim",),
    "epsilon": ("eps",),
    "rope_frames": ("rope_max_seq_len",),
    "text_norm": ("cross_attn_norm",),
}
"""Our names, and the names in configurations of diffusers and of Wan's own code."""
IMAGE_PARTS = ("image_embedder", "add_k_proj", "vace_blocks", "motion_encoder", "face_adapter")
"""Parts of tensor names of networks that are conditioned on more than a prompt."""


@dataclass(frozen=True, kw_only=True)
class WanConfig(StackConfig):
    """The configuration of a Wan network as framelens runs it: StackConfig and Wan's own settings."""

    shared_modulation: ClassVar[bool] = True
    """All blocks share one projection of the time embedding, and each adds its own table."""
    layers: int
    frames_per_chunk: int = 1
    is_causal: bool = False
    """Whether it was trained with frames that do not see later ones."""
    frequencies: int = 256
    """Width of the sinusoid that embeds a timestep."""
    epsilon: float = 1e-6
    text_norm: bool = True
    """Whether the stream is normalised before attention to the prompt."""
    rope_frames: int = 1024
    """Frames, rows and columns that have a rotary position."""

    def __post_init__(self):
        super().__post_init__()
        if self.frames_per_chunk < 1:
            raise ValueError(f"frames_per_chunk must be at least 1, got {self.frames_per_chunk}")

    @property
    def head_width(self) -> int:
        """Channels of one head."""
        return self.d_model // self.heads

    def geometry(self, layers: int) -> Geometry:
        """The shape of videos and token grid of a network with that many layers."""
        return replace(super().geometry(layers), frames_per_chunk=self.frames_per_chunk)

    def for_diffusers(self) -> dict[str, Any]:
        """The arguments of the stock class in diffusers."""
        return {
            "patch_size": (1, self.patch, self.patch),
            "num_attention_heads": self.heads,
            "attention_head_dim": self.head_width,
            "in_channels": self.channels,
            "out_channels": self.channels,
            "text_dim": self.text_width,
            "freq_dim": self.frequencies,
            "ffn_dim": self.mlp_width,
            "num_layers": self.layers,
            "cross_attn_norm": self.text_norm,
            "eps": self.epsilon,
            "rope_max_seq_len": self.rope_frames,
        }


def config_of(
    checkpoint: Checkpoint, options: Mapping[str, Any], frames_per_chunk: int, is_causal: bool
) -> WanConfig:
    """The configuration of a checkpoint with diffusers' names; its config.json overrides the tensors' sizes.

    Raises ValueError for a network that is conditioned on more than a prompt.
    """
    sizes = _measure_tensors(checkpoint) | _read_config(checkpoint.config or {})
    _refuse_other_conditions(checkpoint, sizes.pop("taken_channels"), sizes["channels"])
    sizes["heads"] = _heads(checkpoint, sizes.get("heads"), options["heads"], sizes["d_model"])
    head = sizes["d_model"] // sizes["heads"]
    rows, cols = LATENT_SIZES.get(sizes["channels"], LATENT_SIZES[16])
    try:
        return WanConfig(
            **sizes,
            height=rows if options["height"] is None else options["height"],
            width=cols if options["width"] is None else options["width"],
            text_tokens=options["text_tokens"],
            rope_axes=(head - 4 * (head // 6), 2 * (head // 6), 2 * (head // 6)),
            frames_per_chunk=frames_per_chunk,
            is_causal=is_causal,
        )
    except ValueError as error:
        raise ValueError(f"{checkpoint.path}: {error}") from None


def _measure_tensors(checkpoint: Checkpoint) -> dict[str, Any]:
    """The sizes that the tensors' shapes give."""

    def shape(name: str) -> tuple[int, ...]:
        if name not in checkpoint.weights:
            raise ValueError(f"{checkpoint.path} is not a Wan network: it has no tensor {name}")
        return tuple(checkpoint.weights[name].shape)

    patches = shape("patch_embedding.weight")
    if len(patches) != 5 or patches[2] != 1 or patches[3] != patches[4]:
        raise ValueError(
            f"{checkpoint.path}: patch_embedding.weight has shape {patches}; expected "
            "[width, channels, 1, p, p]"
        )
    patch = patches[-1]
    return {
        "layers": _layers(checkpoint.weights),
        "d_model": patches[0],
        "taken_channels": patches[1],
        "channels": shape("proj_out.weight")[0] // patch**2,
        "patch": patch,
        "mlp_width": shape("blocks.0.ffn.net.0.proj.weight")[0],
        "text_width": shape("condition_embedder.text_embedder.linear_1.weight")[1],
        "frequencies": shape("condition_embedder.time_embedder.linear_1.weight")[1],
        "text_norm": "blocks.0.norm2.weight" in checkpoint.weights,
    }


def _layers(weights: Mapping[str, Tensor]) -> int:
    numbers = [name.split(".")[1] for name in weights if name.startswith("blocks.")]
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=0)


def _read_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config.json, under our names."""
    found = {ours: [config[name] for name in names if name in config] for ours, names in CONFIG_NAMES.items()}
    return {ours: values[0] for ours, values in found.items() if values and values[0] is not None}


def _heads(checkpoint: Checkpoint, configured: int | None, chosen: int | None, width: int) -> int:
    """Number of heads: from the configuration, else from the settings, else heads are 128 wide."""
    if configured and chosen and configured != chosen:
        raise ValueError(f"{checkpoint.path} has {configured} heads, got heads={chosen}: leave out heads")
    heads = configured or chosen or width // HEAD_WIDTH
    if not heads or width % heads or (not configured and not chosen and width % HEAD_WIDTH):
        raise ValueError(
            f"{checkpoint.path}: a width of {width} does not divide into "
            f"{f'{heads} heads' if configured or chosen else f'heads of {HEAD_WIDTH}'}; set heads=..."
        )
    return heads


def _refuse_other_conditions(checkpoint: Checkpoint, taken: int, given: int) -> None:
    part = next((p for p in IMAGE_PARTS if any(p in name for name in checkpoint.weights)), None)
    if taken != given or part is not None:
        what = f"takes {taken} channels and gives {given}" if taken != given else f"has {part}"
        raise ValueError(
            f"{checkpoint.path} {what}: it is conditioned on more than a prompt; supported are "
            "text-to-video networks"
        )
