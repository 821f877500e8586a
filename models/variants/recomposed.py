"""A trained dense network put together again as a separated one, to be fine-tuned.

    model = scd.build(scd.config("tiny", encoder_layers=6, decoder_layers=9, head=3, fusion="residual",
                                 query="noise", start_token=False))
    recompose(model, dense)

The encoder is the dense network's first layers; the decoder its first `head` layers and its last ones, so
that layers may be in both (Bai et al. 2026, section 6.2: of Wan's 30 layers the encoder gets 0 to 24, the
decoder 0 to 4 and 25 to 29).
"""

from collections.abc import Iterator
from typing import Any

from framelens.models.dense import Dense
from framelens.models.scd import SCD


def recompose(model: SCD, dense: Any) -> None:
    """Gives the separated model the dense one's weights; what a dense network has none of stays as it is.

    ValueError where the other is no dense network of ours, or has other shapes or too few layers.
    """
    if not isinstance(dense, Dense):
        raise ValueError(
            f"a separated network starts from a dense network of ours, not from {type(dense).__name__}"
        )
    theirs, own = dense.state_dict(), model.state_dict()
    origins = {name: origin for name in own for origin in _origin(name, model, len(dense.blocks))}
    other = [name for name, origin in origins.items() if _shape(theirs, origin) != own[name].shape]
    if other:
        raise ValueError(f"the dense network has other shapes than the separated one: {sorted(other)[:10]}")
    model.load_state_dict(own | {name: theirs[origin] for name, origin in origins.items()})


def _origin(name: str, model: SCD, depth: int) -> Iterator[str]:
    """The dense network's name of a weight of the separated one; none for those of the join."""
    stack, _, inside = name.partition(".")
    if stack not in ("encoder", "decoder"):
        return
    if not inside.startswith("blocks."):
        yield inside
        return
    _, layer, leaf = inside.split(".", 2)
    config, place = model.config, int(layer)
    if stack == "decoder" and place >= config.head:
        place += depth - config.decoder_layers
    yield f"blocks.{place}.{leaf}"


def _shape(weights: dict[str, Any], name: str) -> Any:
    return weights[name].shape if name in weights else None
