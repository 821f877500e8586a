"""Layers 0 to L replaced by stored features: their whole output (hard) or their summed update (delta).

The layers are not run if the model lets them be skipped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from framelens.probes.chunk.chunk_probe import ChunkProbe
from framelens.probes.chunk.features import DRAWS
from framelens.probes.chunk.partial_passes import Partial, above, by_batches, repeat, velocity

KINDS = ("hard", "delta")

Residual = Sequence[Float[Tensor, "draw n d"]]
"""The residual stream before layer 0 and after each layer."""


@dataclass(frozen=True)
class Served(Partial):
    """The condition in which layers 0 to `layer` are replaced by stored features of that kind."""

    kind: str = KINDS[0]
    layer: int = 0


def serve_features(probe: ChunkProbe, kind: str, layer: int, residual: Residual) -> Served:
    """That condition, with these features: hard continues with them, delta adds what the layers added."""
    before, after = residual[0], residual[layer + 1]

    def begin(tokens: Tensor) -> Tensor:
        return after if kind == "hard" else tokens + (after - before)

    return Served(above(probe, layer), begin, kind, layer)


def generate_refreshed(
    probe: ChunkProbe, places: list[tuple[str, int]], every: int
) -> Float[Tensor, "k draw f c h w"]:
    """The frames of each kind and layer: features are new at steps 0, k, 2k, ..."""
    conditions = [Served(above(probe, layer), None, kind, layer) for kind, layer in places]

    def draw(some: list[Served]) -> Tensor:
        newest = some

        def at(x: Tensor, step: int) -> Tensor:
            nonlocal newest
            if step % every:
                return velocity(probe, newest, x, probe.sigma(step), step)
            whole, residual = probe.record_residual(x, probe.sigma(step), step)
            own = zip(*(rows.split(DRAWS) for rows in residual), strict=True)
            newest = [
                serve_features(probe, one.kind, one.layer, rows) for one, rows in zip(some, own, strict=True)
            ]
            return whole

        return probe.generate(repeat(probe.noise, some), at)

    return by_batches(probe, conditions, draw)


def block_share(probe: ChunkProbe, layers: int, runs: Callable[[int], bool]) -> float:
    """The share of a plain sampler's blocks that run, if `layers` layers run only in the steps of `runs`."""
    saved = sum(layers for step in range(probe.steps) if not runs(step))
    return 1 - saved / (probe.steps * len(probe.layers))
