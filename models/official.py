"""Checkpoints of the authors' code for framelens networks: SCD (Bai et al. 2026), FAR (Gu et al. 2025).

    model = models.load("ema.pth")                               # encoder. and decoder.: SCD; one stack: FAR
    model = models.load("ema.pth", height=16, width=16)          # not stored in such a file, see DEFAULTS

Width, heads (64 wide), depths, channels, conditions and fusion come from names and shapes. The order of
operations is that of the released code, so outputs agree. The released code of SCD differs from its paper, or
loses precision, in these points; the code here does not:

| released code of SCD                               | here                                               |
|----------------------------------------------------|----------------------------------------------------|
| no start token, so frame 0 must be given           | the same for such a file; framelens models have one|
| an encoder may end in a norm without modulation    | scale and shift of 0, which gives the same output  |
| trains the encoder on noisy frames, called clean   | the encoder reads finished frames only             |
| (t = -1), unless set otherwise                     |                                                    |
| one of two decoder passes of training has a_(i+1)  | the decoder of frame i always has a_i              |
| context noise before the encoder's final scale     | context noise on the features (equation 7)         |
| bf16 frame numbers and timesteps: 279 of 300 and   | angles of RoPE in float64, timesteps in float32    |
| 507 of 1000 differ                                 |                                                    |
| a mask of all tokens by all tokens for a new frame | a cache with the tokens that may be seen, no mask  |
| modulation computed for every token                | once per frame, or once per step of the sampler    |
"""

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from framelens import models
from framelens.models.loading.checkpoint import Checkpoint
from framelens.models.parts.released import SAMPLING

HEAD = 64
CLASSES: tuple[str, ...] = ()
ORIGINS = {"scd": "the released code of SCD", "dense": "the released code of FAR"}
DEFAULTS: dict[str, Any] = {"height": 8, "width": 8, "patch": 1, "fusion": None}
"""Values that no tensor shows, as in the released models: latent size, patch, and whether SCD adds features
or reads them as tokens (None: as tokens, unless the tensors belong to another fusion)."""

SILENT_FUSIONS = ("token_concat", "add")
NAMES = {
    "embed.": "x_embedder.",
    "context_embed.": "context_embedder.",
    "time.mlp.0.": "timestep_embedder.linear_1.",
    "time.mlp.2.": "timestep_embedder.linear_2.",
    "condition.": "{condition}_embedder.embedding_table.",
    "blocks.": "transformer_blocks.",
    "norm_out.": "norm_out.linear.",
    "unembed.": "proj_out.",
    "context_unembed.": "context_proj_out.",
}
"""Beginnings of our tensor names of a stack, and those of the released layout; FAR-Long's are included."""
NAMES_IN_BLOCKS = {
    ".norm1.linear.": ".norm1.linear.",
    ".norm2.linear.": ".norm2.linear.",
    ".attn.q.": ".attn.to_q.",
    ".attn.k.": ".attn.to_k.",
    ".attn.v.": ".attn.to_v.",
    ".attn.o.": ".attn.to_out.0.",
    ".attn.norm_q.": ".attn.norm_q.",
    ".attn.norm_k.": ".attn.norm_k.",
    ".attn.added_q.": ".attn.add_q_proj.",
    ".attn.added_k.": ".attn.add_k_proj.",
    ".attn.added_v.": ".attn.add_v_proj.",
    ".attn.added_o.": ".attn.to_add_out.",
    ".attn.norm_added_q.": ".attn.norm_added_q.",
    ".attn.norm_added_k.": ".attn.norm_added_k.",
    ".mlp.0.": ".mlp.net.0.proj.",
    ".mlp.2.": ".mlp.net.2.",
}
NAMES_OF_FUSIONS = {
    "channel_concat": {"join.projection.": "decoder.decoder_input_proj."},
    "token_concat_projected": {
        "join.norm.": "decoder.decoder_alignment.0.",
        "join.projection.": "decoder.decoder_alignment.1.",
    },
}


def recognises(names: Collection[str]) -> bool:
    """Whether these are the tensor names of SCD or FAR; FAR-Long has another family file."""
    embedders = ("encoder.x_embedder.weight", "decoder.x_embedder.weight", "x_embedder.weight")
    return any(name in names for name in embedders) and "context_embedder.weight" not in names


def read(checkpoint: Checkpoint, options: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """The network with the file's weights, and its metadata. Raises ValueError if they do not fit."""
    model, names, metadata = layout(checkpoint, options)
    if metadata["network"] == "scd":
        checkpoint = _with_final_modulation(checkpoint, model.config.d_model)
    fill(model, checkpoint, names)
    model.latent, model.sampling = True, SAMPLING
    return model, metadata


def layout(checkpoint: Checkpoint, options: dict[str, Any]) -> tuple[Any, dict[str, str], dict[str, Any]]:
    """The network of these tensors, the file's name for each of its tensors, and metadata.

    The network is on the meta device: no memory for weights. Raises ValueError if `options` do not fit.
    """
    is_scd = "x_embedder.weight" not in checkpoint.weights
    network, stack = ("scd", "decoder.") if is_scd else ("dense", "")
    fields: dict[str, Any] = options | sizes(checkpoint, stack, options["patch"])
    condition, fields["conditions"] = _read_conditions(checkpoint, stack)
    if is_scd:
        fields |= {f"{half}_layers": depth(checkpoint, f"{half}.") for half in ("encoder", "decoder")}
        fields |= {"fusion": _read_fusion(checkpoint, options["fusion"]), "start_token": False}
    else:
        _refuse_fusion(checkpoint, fields.pop("fusion"))
        fields["layers"] = depth(checkpoint, "")
    model = on_meta(checkpoint, network, fields)
    names = {name: official_name(name, condition, fields.get("fusion")) for name in model.state_dict()}
    metadata = {"network": network, "config": model.describe(), "origin": ORIGINS[network]}
    return model, names, metadata | {"condition": condition, "latent": True}


def on_meta(checkpoint: Checkpoint, network: str, fields: dict[str, Any]) -> Any:
    """The network of that configuration on the meta device; ValueError if the values do not fit together."""
    file = models.network(network)
    small = [name for name in ("height", "width") if fields[name] < 1]
    if small:
        raise ValueError(f"{checkpoint.path}: {small[0]} must be at least 1, got {fields[small[0]]}")
    try:
        with torch.device("meta"):
            return file.build(file.Config(**fields))
    except ValueError as error:
        raise ValueError(f"{checkpoint.path}: {error}") from None


def fill(model: nn.Module, checkpoint: Checkpoint, names: dict[str, str]) -> None:
    """Loads the file's weights into the network, in float32; `names` maps our names to the file's."""
    shapes = {names[name]: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    checkpoint.check(shapes)
    model.load_state_dict(
        {ours: checkpoint.weights[theirs].float() for ours, theirs in names.items()}, assign=True
    )


def official_name(name: str, condition: str | None, fusion: str | None = None) -> str:
    """The released layout's name for our tensor of that name."""
    for ours, theirs in NAMES_OF_FUSIONS.get(fusion or "", {}).items():
        if name.startswith(ours):
            return name.replace(ours, theirs)
    stack = next((stack for stack in ("encoder.", "decoder.") if name.startswith(stack)), "")
    begin = next(begin for begin in NAMES if name.startswith(stack + begin))
    theirs = NAMES[begin].format(condition=condition) + name.removeprefix(stack + begin)
    if begin == "blocks.":
        part = next(part for part in NAMES_IN_BLOCKS if part in theirs)
        theirs = theirs.replace(part, NAMES_IN_BLOCKS[part])
    return stack + theirs


def sizes(checkpoint: Checkpoint, stack: str, patch: int) -> dict[str, int]:
    """Channels, heads and width, from the shape of a stack's embedding."""
    name = f"{stack}x_embedder.weight"
    width, values = matrix(checkpoint, name)
    if patch < 1:
        raise ValueError(f"{checkpoint.path}: patch must be at least 1, got {patch}")
    if width % HEAD or values % patch**2:
        raise ValueError(
            f"{checkpoint.path}: {name} has shape {(width, values)}, expected a multiple of {HEAD} and a "
            f"multiple of patch {patch} squared"
        )
    return {"channels": values // patch**2, "heads": width // HEAD, "d_model": width}


def depth(checkpoint: Checkpoint, stack: str) -> int:
    """Number of blocks; 1 if there are none, so that the error can name the missing tensors."""
    blocks = re.compile(re.escape(stack) + r"transformer_blocks\.(\d+)\.")
    return len({match[1] for match in map(blocks.match, checkpoint.weights) if match}) or 1


def matrix(checkpoint: Checkpoint, name: str) -> tuple[int, int]:
    """The shape of a tensor; ValueError if it does not exist or is not a matrix."""
    if name not in checkpoint.weights:
        raise ValueError(f"{checkpoint.path} has no tensor {name}, which gives the width of the network")
    shape = tuple(checkpoint.weights[name].shape)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{checkpoint.path}: {name} has shape {shape}, expected a matrix")
    return shape


def conditions(checkpoint: Checkpoint, stack: str, condition: str) -> int:
    """Number of actions or labels of a stack without the null condition; 0 if it has none."""
    table = f"{stack}{condition}_embedder.embedding_table.weight"
    return matrix(checkpoint, table)[0] - 1 if table in checkpoint.weights else 0


def _read_conditions(checkpoint: Checkpoint, stack: str) -> tuple[str | None, int]:
    """The kind of conditions, action or label, and their number."""
    for condition in ("action", "label"):
        if count := conditions(checkpoint, stack, condition):
            return condition, count
    return None, 0


def _read_fusion(checkpoint: Checkpoint, requested: str | None) -> str:
    """The fusion: from the tensors if they show it, else the requested one, else token_concat."""
    if "decoder.decoder_input_proj.weight" in checkpoint.weights:
        fusions: tuple[str, ...] = ("channel_concat",)
    elif any(name.startswith("decoder.decoder_alignment.") for name in checkpoint.weights):
        fusions = ("token_concat_projected",)
    else:
        fusions = SILENT_FUSIONS
    fusion = requested or fusions[0]
    if fusion not in fusions:
        raise ValueError(
            f"{checkpoint.path} has the tensors of fusion {' or '.join(fusions)}, got fusion={fusion!r}"
        )
    return fusion


def _refuse_fusion(checkpoint: Checkpoint, requested: str | None) -> None:
    if requested is not None:
        settings = ", ".join(name for name in DEFAULTS if name != "fusion")
        raise ValueError(
            f"{checkpoint.path} is a dense checkpoint, got fusion={requested!r}; its settings are {settings}"
        )


def _with_final_modulation(checkpoint: Checkpoint, width: int) -> Checkpoint:
    """The weights, with a final modulation of zeros added for a stack that has a plain final norm."""
    added = {}
    for stack in ("encoder.", "decoder."):
        names = [f"{stack}norm_out.linear.{part}" for part in ("weight", "bias")]
        if not any(name in checkpoint.weights for name in names):
            added |= dict(zip(names, (torch.zeros(2 * width, width), torch.zeros(2 * width)), strict=True))
    return replace(checkpoint, weights=checkpoint.weights | added)
