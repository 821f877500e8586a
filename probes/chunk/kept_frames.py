"""Frames that were generated under an intervention, kept as pictures: of the first clips, by layer.

kept = KeptFrames("cut", index, probe, layers)      # nothing is kept of later clips
kept.put(frames, layer=3)                           # [draw f c h w]
kept.datasets()                                     # {"cut_frames": (clip, layer, channel, row, col)}
"""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from framelens.analyses.places import even_places
from framelens.probes.chunk.chunk_probe import ChunkProbe

CLIPS = 2
"""The first clips of a run, whose frames are kept."""
MOST_BYTES = 8_000_000
"""Of the frames of one clip and experiment; where all layers take more, evenly spaced ones are kept."""
PICTURE = ("channel", "row", "col")
BYTES = "pixels, 0 black to 255 white"


class KeptFrames:
    """The last frame of the chunk from the first noise draw, by layer."""

    def __init__(self, name: str, clip: int, probe: ChunkProbe, layers: Sequence[int], **about: int):
        """Of that clip, for an experiment of that name; `about` are attributes of its dataset."""
        self.name, self.probe, self.about = name, probe, about
        size = as_stored(probe.truth[0, -1], probe.scale.is_latent).nbytes
        places = even_places(len(layers), max(2, MOST_BYTES // size))
        self.layers = [layers[place] for place in places] if clip < CLIPS else []
        self._frames: dict[int, np.ndarray] = {}

    def put(self, frames: Float[Tensor, "draw f c h w"], layer: int) -> None:
        """Keeps the frame that one condition generated, if it is one of a layer that is kept."""
        if layer in self.layers:
            self._frames[layer] = self._store(frames)

    def datasets(self) -> dict[str, xr.Dataset]:
        """`generated` by layer, `plain` (whole model, same noise) and `truth`; empty for later clips."""
        if not self.layers:
            return {}
        probe, layers = self.probe, sorted(self._frames)
        about = describe_stored(probe.scale.is_latent)
        generated = np.stack([self._frames[layer] for layer in layers])
        variables = {
            "generated": (("clip", "layer", *PICTURE), generated[None], about),
            "plain": (("clip", *PICTURE), self._store(probe.sample)[None], about),
            "truth": (("clip", *PICTURE), self._store(probe.truth)[None], about),
        }
        coords = {"layer": layers, "point": ("layer", [probe.layers.names[layer] for layer in layers])}
        frame = probe.frame + probe.chunk - 1
        attrs = {"frame": frame, "steps": probe.steps, "latent": int(probe.scale.is_latent)} | self.about
        return {f"{self.name}_frames": xr.Dataset(variables, coords, attrs)}

    def _store(self, frames: Float[Tensor, "draw f c h w"]) -> np.ndarray:
        return as_stored(frames[0, -1], self.probe.scale.is_latent)


def as_stored(frames: Tensor, is_latent: bool) -> np.ndarray:
    """Pixels in [-1, 1] as bytes from 0 to 255, or latents as they are, in float32."""
    values = frames.detach().float().cpu()
    return (values if is_latent else ((values + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)).numpy()


def describe_stored(is_latent: bool) -> dict[str, str]:
    """The units and the long name of frames as they are stored."""
    return {"units": "1", "long_name": f"generated frame; {'latents as they are' if is_latent else BYTES}"}
