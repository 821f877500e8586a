"""A trained dense network recomposed as a separated one, to be fine-tuned.

    model = scd.build(scd.config("tiny", encoder_layers=6, decoder_layers=9, head=3, fusion="residual",
                                 query="noise", start_token=False))
    recompose(model, dense)

The encoder gets the dense network's first layers. The decoder gets its first `head` layers and its last
ones, so a layer may be in both (Bai et al. 2026, section 6.2: of Wan's 30 layers the encoder gets 0 to 24,
the decoder 0 to 4 and 25 to 29).
"""

from collections.abc import Iterator
from typing import Any

from framelens.models.dense import Dense
from framelens.models.scd import SCD


def recompose(model: SCD, dense: Any) -> None:
    """Copies the dense network's weights into the separated model; weights of the join do not change.

    ValueError if `dense` is not a framelens dense network, or has other shapes or too few layers.
    """
    if not isinstance(dense, Dense):
        raise ValueError(f"recompose needs a framelens dense network, got {type(dense).__name__}")
    theirs, own = dense.state_dict(), model.state_dict()
    origins = {name: origin for name in own for origin in _origin(name, model, len(dense.blocks))}
    other = [name for name, origin in origins.items() if _shape(theirs, origin) != own[name].shape]
    if other:
        raise ValueError(f"the dense network has other shapes than the separated one: {sorted(other)[:10]}")
    model.load_state_dict(own | {name: theirs[origin] for name, origin in origins.items()})


def _origin(name: str, model: SCD, depth: int) -> Iterator[str]:
    """The dense network's name of a weight of the separated one; nothing for weights of the join."""
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
