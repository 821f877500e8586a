"""A span of layers skipped at all but the first few steps, without retraining.

Bai et al. 2026 skip the middle half of a network (layers 8 to 22 of 30). Here: spans of half the layers and
of a quarter, at every place.
"""

import xarray as xr

from framelens.probes.chunk import partial_passes
from framelens.probes.chunk.chunk_probe import DRAWS, ChunkProbe
from framelens.probes.chunk.measures import Table
from framelens.probes.chunk.partial_passes import Partial, all_but
from framelens.probes.chunk.stored_features import block_share
from framelens.probes.run.costs import ChunkUse, Evaluations
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.settings import Settings
from framelens.probes.run.shape import RunShape

KEPT = (0, 1, 2, 4)
"""First steps at which all layers run."""

Span = tuple[int, int]


def measure(probed_clip: ProbedClip) -> dict[str, xr.Dataset]:
    """`skip`, (clip, span, kept_steps), with velocities (the span skipped) by sigma."""
    probe = probed_clip.chunk_probe()
    chosen = spans(probed_clip.layers[0], probed_clip.layers[-1], is_quick=probed_clip.settings.quick)
    kept_steps = kept_steps_of(probed_clip.settings)
    labels = [f"{first}-{last}" for first, last in chosen]
    table = Table(probe, span=labels, kept_steps=kept_steps)
    table.put_plain()
    conditions = [skip_span(probe, span) for span in chosen]
    for kept in kept_steps:
        drawn = partial_passes.generate(probe, conditions, probe.path[kept], kept)
        for (first, last), label, frames in zip(chosen, labels, drawn, strict=True):
            table.put_frames(frames, span=label, kept_steps=kept)
            share = block_share(probe, last - first + 1, lambda step, kept=kept: step < kept)
            table.put({"block_share": share}, span=label, kept_steps=kept)
    for label, velocity in zip(labels, partial_passes.velocities(probe, conditions), strict=True):
        table.put_velocities(velocity, span=label)
    first, last = zip(*chosen, strict=True)
    return {"skip": table.dataset(first=("span", list(first)), last=("span", list(last)))}


def evaluations(run: RunShape) -> Evaluations:
    """The steps after the kept ones and the velocities, without the layers of each span."""
    passes = sum(run.steps - kept for kept in kept_steps_of(run.settings)) + run.levels
    chosen = spans(run.reached[0], run.reached[-1], run.settings.quick)
    layers = sum(run.layers - (last - first + 1) for first, last in chosen)
    return Evaluations(DRAWS * passes * layers, chunk=ChunkUse())


def kept_steps_of(settings: Settings) -> list[int]:
    """Numbers of first steps at which all layers run; fewer than the steps of an intervention."""
    return [kept for kept in (KEPT[:3:2] if settings.quick else KEPT) if kept < settings.drawn_steps]


def spans(first: int, last: int, is_quick: bool = False) -> list[Span]:
    """First and last layer of each span within this range: half of it and a quarter of it, at every place.

    In quick runs at every other place. ValueError for an empty range.
    """
    depth = last - first + 1
    if depth < 1:
        raise ValueError(f"the span of layers {first} to {last} is empty; give the first and the last layer")
    sizes = sorted({max(1, depth // 4), max(1, depth // 2)})
    stride = 2 if is_quick else 1
    return [(begin, begin + size - 1) for size in sizes for begin in range(first, last - size + 2, stride)]


def skip_span(probe: ChunkProbe, span: Span) -> Partial:
    """The condition without the layers of the span; ValueError for a span outside the stack."""
    first, last = span
    probe.layers.check(first, last)
    return Partial(all_but(probe, range(first, last + 1)))
