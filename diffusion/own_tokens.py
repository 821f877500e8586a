"""Which tokens of a hook point's value belong to the current chunk.

    own_tokens(model, "decoder.blocks.3.hook_resid_post", value)          # [b m d] -> [b n d]

Some layers process other tokens beside those of the current chunk: context tokens of a separated model,
history, registers. Only the model knows which these are. It states by the `own_queries` of its
AttentionPoints how many of the last tokens are the chunk's own. Everything that reads values of a denoising
pass reads them through this function.
"""

from jaxtyping import Shaped
from torch import Tensor

from framelens.diffusion.contract import CausalDiffuser


def own_tokens(
    model: CausalDiffuser,
    name: str,
    value: Shaped[Tensor, "b m *d"],
    frames: int | None = None,
    clips: int | None = None,
) -> Shaped[Tensor, "b n *d"]:
    """The tokens of the frames that the pass denoises, of a value at the hook point `name`.

    A view; the value itself where there are no other tokens. `frames` is how many frames the pass denoises,
    by default one chunk. ValueError where there are more tokens than these frames have and no attention of
    that layer (before the layers: of that stack) says by `own_queries` which are their own, and where the
    value has another number of rows than the given one of clips.
    """
    if clips is not None:
        require_rows(name, value.shape[0], clips)
    chunk = model.geometry.frames_per_chunk
    chunks = 1 if frames is None else frames // chunk
    own = chunks * model.geometry.tokens_per_chunk
    if value.shape[1] <= own:
        return value
    declared = _own_queries(model, name)
    if declared is None:
        raise ValueError(
            f"{name} gives {value.shape[1]} tokens and {chunks * chunk} frames have {own}; give the "
            "AttentionPoint of that layer own_queries, the number of last tokens that are the current chunk's"
        )
    return value[:, -chunks * declared :]


def require_rows(name: str, rows: int, clips: int) -> None:
    """ValueError unless a value at that point has a row for each clip."""
    if rows != clips:
        raise ValueError(
            f"{name} gives {rows} rows for {clips} clip{'s' * (clips > 1)}: a network that runs several "
            "branches as one batch cannot be probed; give --guidance, which makes a pass of each branch"
        )


def _own_queries(model: CausalDiffuser, name: str) -> int | None:
    """What attention of the same layer declares; for a point before the layers, that of the same stack."""
    stack, found, rest = name.rpartition("blocks.")
    place = f"{stack}blocks.{rest.partition('.')[0]}." if found else name.rpartition("hook_")[0]
    declared = (point.own_queries for key, point in model.attn_dict.items() if key.startswith(place))
    return next((own for own in declared if own is not None), None)
