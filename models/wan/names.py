"""Diffusers' names for the tensor names of Wan's own code, which most causal checkpoints use.

Note that norm2 and norm3 of a block swap: Wan numbers them by kind, diffusers in order of use.
"""

from collections.abc import Collection, Mapping

from torch import Tensor

ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k"}
IMAGE_ATTENTION = {"k_img": "add_k_proj", "v_img": "add_v_proj", "norm_k_img": "norm_added_k"}
BLOCK = {
    "norm3": "norm2",
    "norm2": "norm3",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "modulation": "scale_shift_table",
}
BLOCK |= {f"self_attn.{theirs}": f"attn1.{ours}" for theirs, ours in ATTENTION.items()}
BLOCK |= {f"cross_attn.{theirs}": f"attn2.{ours}" for theirs, ours in (ATTENTION | IMAGE_ATTENTION).items()}
OUTSIDE = {
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "img_emb": "condition_embedder.image_embedder",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
    "fps_projection.0": "fps_projection.net.0.proj",
    "fps_projection.2": "fps_projection.net.2",
}
WAN_MARK, DIFFUSERS_MARK = "blocks.0.self_attn.q.weight", "blocks.0.attn1.to_q.weight"
SKYREELS_MARK = "fps_embedding.weight"
ANYFLOW_MARK = "far_patch_embedding.weight"


def is_original(names: Collection[str]) -> bool:
    """Whether the names are those of Wan's own code."""
    return WAN_MARK in names


def is_wan_like(names: Collection[str]) -> bool:
    """Whether these are the tensor names of Wan or SkyReels, in either naming."""
    known = WAN_MARK in names or DIFFUSERS_MARK in names
    return known and "patch_embedding.weight" in names and ANYFLOW_MARK not in names


def for_diffusers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under diffusers' names; unknown names and diffusers' names do not change."""
    if not is_original(weights):
        return dict(weights)
    return {rename(name): tensor for name, tensor in weights.items()}


def for_wan(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, with diffusers' names, under the names of Wan's own code."""
    outside, block = ({ours: theirs for theirs, ours in names.items()} for names in (OUTSIDE, BLOCK))
    return {_rename(name, outside, block): tensor for name, tensor in weights.items()}


def rename(name: str) -> str:
    """Diffusers' name for a tensor name of Wan's own code."""
    return _rename(name, OUTSIDE, BLOCK)


def _rename(name: str, outside: Mapping[str, str], block: Mapping[str, str]) -> str:
    if not name.startswith("blocks."):
        return _with_start(name, outside)
    blocks, number, inside = name.split(".", 2)
    return f"{blocks}.{number}.{_with_start(inside, block)}"


def _with_start(name: str, starts: Mapping[str, str]) -> str:
    for theirs, ours in starts.items():
        if name == theirs or name.startswith(f"{theirs}."):
            return ours + name[len(theirs) :]
    return name
