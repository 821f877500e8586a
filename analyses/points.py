"""The place of a hook name: `decoder.blocks.3.hook_mlp_out` is in block 3 of the decoder."""

import re
from functools import cache

_POINT = re.compile(r"(?:(encoder|decoder)\.)?(?:blocks\.(\d+)(?:\.|$)|hook_embed$)")


def layer_of(name: str) -> int:
    """The block index in a hook name, -1 for `hook_embed`; `encoder.` and `decoder.` prefixes are allowed."""
    return _parse(name)[1]


def block_of(name: str) -> str:
    """The block of a hook name: `decoder.blocks.3.hook_mlp_out` -> `decoder.blocks.3`."""
    stack, layer = _parse(name)
    return f"{stack}.blocks.{layer}".lstrip(".") if layer >= 0 else name


def depth_order(name: str) -> tuple[bool, int, str]:
    """A sort key: by depth, of two stacks the encoder first."""
    stack, layer = _parse(name)
    return stack == "decoder", layer, name


@cache
def _parse(name: str) -> tuple[str, int]:
    match = _POINT.match(name)
    if match is None:
        raise ValueError(
            f"{name!r} names no layer; expected [encoder.|decoder.]blocks.<n>.<point> or hook_embed"
        )
    stack, layer = match.groups()
    return stack or "", -1 if layer is None else int(layer)
