"""Clips that the trained network generates on its own with attention to the past cut from a layer on.

They are the free-running rollout of `rollouts`, from the same noise by the same sampler, with the layers from
L on seeing the current frame only; finished frames are encoded without the cut. Of the first clip only, for
the player of the page. There is one film for each layer, so they are made where several conditions fit in one
batch, and of larger networks only if the settings name this experiment.
"""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from framelens.probes.chunk import cross_frame
from framelens.probes.chunk.chunk_probe import DRAWS
from framelens.probes.chunk.kept_frames import PICTURE, as_stored, describe_stored
from framelens.probes.experiments.cut import cut_modes
from framelens.probes.experiments.rollouts import draw_rollout
from framelens.probes.run.costs import ChunkUse, Evaluations
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.shape import RunShape, shape_of_run

CLIPS = 1
"""The first clips of a run, of which films are made."""


def measure(probed_clip: ProbedClip) -> dict[str, xr.Dataset]:
    """`cut_films`, (clip, layer, frame, channel, row, col): the generated frames, cut from each layer on."""
    run = shape_of_run(probed_clip.networks["trained"], probed_clip.settings, probed_clip.frames)
    if not _is_made(run) or probed_clip.index >= CLIPS:
        return {}
    probe, layers = probed_clip.chunk_probe(), run.every
    modes = torch.stack([cut_modes(probe, layer, "from") for layer in layers])
    is_alone = probed_clip.settings.renoise or probe.batch == 1  # fresh noise depends on the number of rows
    parts = modes.split(1 if is_alone else probe.batch * DRAWS)
    films = torch.cat([generate(probed_clip, part) for part in parts])
    first, is_latent = probed_clip.settings.context, probe.scale.is_latent
    stored = np.stack([as_stored(film[first:], is_latent) for film in films])
    dims = ("clip", "layer", "frame", *PICTURE)
    coords = {
        "layer": layers,
        "point": ("layer", [probe.layers.names[layer] for layer in layers]),
        "frame": np.arange(first, probed_clip.frames),
    }
    variables = {"video": (dims, stored[None], describe_stored(is_latent))}
    return {"cut_films": xr.Dataset(variables, coords, {"latent": int(is_latent)})}


def evaluations(run: RunShape) -> Evaluations:
    """Of a clip that is kept: every step of all chunks after the context, once for each layer."""
    if not _is_made(run):
        return Evaluations(0)
    rows = run.branches * len(run.every)
    passes = rows * run.settings.steps * run.drawn
    encoding = run.encoding(run.chunks - 1, rows)
    return Evaluations(passes * run.layers, encoding, ChunkUse(velocities=False), CLIPS)


def kept_bytes(run: RunShape) -> int:
    """The past of each row of a batch, in each branch."""
    rows = min(len(run.every), run.batch * DRAWS) * run.branches
    return run.cache_bytes(run.chunks, rows) if _is_made(run) else 0


def generate(probed_clip: ProbedClip, modes: Int[Tensor, "b layer head"]) -> Float[Tensor, "b f c h w"]:
    """The free-running rollout in these modes, a row for each."""
    with cross_frame.edit_cross_part(probed_clip.chunk_probe(), modes, {}) as on_pass:
        model = probed_clip.networks["trained"]
        return draw_rollout(probed_clip, model, "free_running", on_pass, rows=len(modes))


def _is_made(run: RunShape) -> bool:
    """Whether films are made of any clip."""
    is_asked = "cut_films" in run.settings.experiments
    return run.attends_to_past and (run.batch > 1 or is_asked)
