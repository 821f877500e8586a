"""Checkpoints of the authors' code, read into our networks: SCD (Bai et al. 2026) and FAR (Gu et al. 2025).

    model = models.load("ema.pth")                               # encoder. and decoder.: SCD; one stack: FAR
    model = models.load("ema.pth", height=16, width=16)          # what such a file cannot say, see UNSAID

Width, heads (64 wide), depths, channels, conditions and fusion are read off names and shapes. The order of
operations is the released one, so that outputs agree. Where the released code of SCD departs from its paper,
or loses something, ours does not:

| released code of SCD                               | here                                               |
|----------------------------------------------------|----------------------------------------------------|
| no start token, so frame 0 has to be given         | the same for such a file; our own models have one  |
| an encoder may end in a norm without modulation    | scale and shift of 0, which is the same            |
| trains the encoder on noisy frames, called clean   | the encoder reads finished frames only             |
| (t = -1), unless told otherwise                    |                                                    |
| one of two decoder passes of training has a_(i+1)  | the decoder of frame i always has a_i              |
| context noise before the encoder's final scale     | context noise on the features (equation 7)         |
| bf16 frame numbers and timesteps: 279 of 300 and   | angles of RoPE in float64, timesteps in float32    |
| 507 of 1000 differ                                 |                                                    |
| a mask of all tokens by all tokens for a new frame | a cache with the tokens that may be seen, no mask  |
| modulation computed for every token                | once per frame, or once per step of the sampler    |
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import models

HEAD = 64
ORIGINS = {"scd": "the released code of SCD", "dense": "the released code of FAR"}
UNSAID = {"height": 8, "width": 8, "patch": 1, "fusion": "token_concat"}
"""What no tensor says, as in the released models: the latent's size, its patch, whether SCD adds features or
has them as tokens."""

SILENT_FUSIONS = ("token_concat", "add")
NAMES = {
    "embed.": "x_embedder.",
    "time.mlp.0.": "timestep_embedder.linear_1.",
    "time.mlp.2.": "timestep_embedder.linear_2.",
    "condition.": "{condition}_embedder.embedding_table.",
    "blocks.": "transformer_blocks.",
    "norm_out.": "norm_out.linear.",
    "unembed.": "proj_out.",
}
"""How our names of a stack begin, and what they begin with in the released layout."""
NAMES_IN_BLOCKS = {
    ".norm1.linear.": ".norm1.linear.",
    ".norm2.linear.": ".norm2.linear.",
    ".attn.q.": ".attn.to_q.",
    ".attn.k.": ".attn.to_k.",
    ".attn.v.": ".attn.to_v.",
    ".attn.o.": ".attn.to_out.0.",
    ".attn.norm_q.": ".attn.norm_q.",
    ".attn.norm_k.": ".attn.norm_k.",
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


@dataclass(frozen=True)
class Layout:
    """How to fill a network from such a file: its tensors, and the name each of ours has there."""

    model: Any
    weights: dict[str, Tensor]
    names: dict[str, str]
    metadata: dict[str, Any]
    """What a checkpoint of ours would have said; neither videos nor training are known."""


def read_off(path: Path, weights: dict[str, Tensor], unsaid: dict[str, Any]) -> Layout:
    """The network that these tensors belong to, on the meta device: without memory for weights.

    Raises ValueError where they have the layout of no network of ours, or `unsaid` does not fit them.
    """
    network = _network(path, weights)
    fields = _chosen(path, network, weights, unsaid)
    fields |= _sizes(path, network, weights, fields["patch"])
    condition, fields["conditions"] = _conditions(path, network, weights)
    file = models.network(network)
    try:
        config = file.Config(**fields)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    with torch.device("meta"):
        model = file.build(config)
    if network == "scd":
        weights = _with_final_modulation(weights, config.d_model)
    names = {name: official_name(name, condition, fields.get("fusion")) for name in model.state_dict()}
    metadata = {"network": network, "config": model.describe(), "origin": ORIGINS[network]}
    return Layout(model, weights, names, metadata | {"condition": condition})


def official_name(name: str, condition: str | None, fusion: str | None) -> str:
    """What the released layout calls our tensor of that name."""
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


def _network(path: Path, weights: dict[str, Tensor]) -> str:
    if any("context_embedder." in name for name in weights):
        raise ValueError(
            f"{path} is a FAR-Long checkpoint, whose second, coarser patches are not supported; supported "
            "are SCD and FAR-B, -M, -L and -XL"
        )
    if "encoder.x_embedder.weight" in weights or "decoder.x_embedder.weight" in weights:
        return "scd"
    if "x_embedder.weight" in weights:
        return "dense"
    raise ValueError(
        f"{path} is a {path.suffix[1:]} file, but not a framelens checkpoint, nor one of the code of SCD "
        "(encoder.x_embedder.weight, ...) or of FAR (x_embedder.weight, ...): it holds "
        f"{sorted(weights)[:10]}"
    )


def _sizes(path: Path, network: str, weights: dict[str, Tensor], patch: int) -> dict[str, Any]:
    name = "decoder.x_embedder.weight" if network == "scd" else "x_embedder.weight"
    width, values = _matrix(path, weights, name)
    if width % HEAD or values % patch**2:
        raise ValueError(
            f"{path}: {name} has shape {(width, values)}, expected a multiple of {HEAD} and a multiple of "
            f"patch {patch} squared"
        )
    sizes = {"channels": values // patch**2, "heads": width // HEAD, "d_model": width}
    if network == "dense":
        return sizes | {"layers": _depth(weights, "")}
    depths = {f"{half}_layers": _depth(weights, f"{half}.") for half in ("encoder", "decoder")}
    return sizes | depths | {"start_token": False}


def _conditions(path: Path, network: str, weights: dict[str, Tensor]) -> tuple[str | None, int]:
    """Whether the conditions are actions or labels, and how many there are beside the null condition."""
    stack = "decoder." if network == "scd" else ""
    for condition in ("action", "label"):
        table = f"{stack}{condition}_embedder.embedding_table.weight"
        if table in weights:
            return condition, _matrix(path, weights, table)[0] - 1
    return None, 0


def _chosen(path: Path, network: str, weights: dict[str, Tensor], unsaid: dict[str, Any]) -> dict[str, Any]:
    """What no tensor says: as asked for, else as in the released models."""
    possible = {name: value for name, value in UNSAID.items() if network == "scd" or name != "fusion"}
    unknown = sorted(unsaid.keys() - possible)
    if unknown:
        raise ValueError(
            f"{path} is a {network} checkpoint and cannot be told {', '.join(unknown)}; it can be told "
            f"{', '.join(possible)}"
        )
    chosen = possible | unsaid
    small = [name for name in ("height", "width", "patch") if chosen[name] < 1]
    if small:
        raise ValueError(f"{path}: {small[0]} must be at least 1, got {chosen[small[0]]}")
    if network != "scd":
        return chosen
    if "decoder.decoder_input_proj.weight" in weights:
        fusions: tuple[str, ...] = ("channel_concat",)
    elif any(name.startswith("decoder.decoder_alignment.") for name in weights):
        fusions = ("token_concat_projected",)
    else:
        fusions = SILENT_FUSIONS
    fusion = unsaid.get("fusion", fusions[0])
    if fusion not in fusions:
        raise ValueError(f"{path} has the tensors of the fusion {' or '.join(fusions)}, not of {fusion!r}")
    return chosen | {"fusion": fusion}


def _depth(weights: dict[str, Tensor], stack: str) -> int:
    """How many blocks there are; 1 where there are none, so that the missing ones can be named."""
    blocks = re.compile(re.escape(stack) + r"transformer_blocks\.(\d+)\.")
    return len({match[1] for match in map(blocks.match, weights) if match}) or 1


def _matrix(path: Path, weights: dict[str, Tensor], name: str) -> tuple[int, int]:
    if name not in weights:
        raise ValueError(f"{path} has no {name}, which says how wide the network is")
    shape = tuple(weights[name].shape)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{path}: {name} has shape {shape}, expected a matrix")
    return shape


def _with_final_modulation(weights: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """The weights with a final norm that scales by 1 and shifts by 0 where a stack has a plain one."""
    added = {}
    for stack in ("encoder.", "decoder."):
        names = [f"{stack}norm_out.linear.{part}" for part in ("weight", "bias")]
        if not any(name in weights for name in names):
            added |= dict(zip(names, (torch.zeros(2 * width, width), torch.zeros(2 * width)), strict=True))
    return weights | added
