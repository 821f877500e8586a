"""What a run is computed on, read from its model and its clips.

identity = identity_of(model, settings, clips)          # records/identity.py
"""

import json
from collections.abc import Iterable
from pathlib import Path

from framelens.diffusion.contract import CausalDiffuser, module_of, traits
from framelens.models.loading.weights import hash_weights
from framelens.probes.chunk.pasts import Clip
from framelens.probes.run.clips import prompts_file, source_of
from framelens.probes.run.seeded import open_world, seeds_of
from framelens.probes.run.settings import Settings
from framelens.records.identity import Identity, Input, framelens_code
from framelens.videos import Window, latents
from framelens.videos.datasets import RecordedClips


def identity_of(model: CausalDiffuser, settings: Settings, clips: Iterable[Clip]) -> Identity:
    """Hashes of the weights, of an adapter's code, and of every byte of the files that clips come from."""
    own = traits(model)
    config = {} if own.describe is None else own.describe()
    return Identity(
        weights=own.source.weights or hash_weights(module_of(model)),
        config=json.loads(json.dumps(config, default=str)),
        code=own.source.code,
        inputs=tuple(_inputs(model, settings, clips)),
        framelens=framelens_code(),
    )


def windows_of(clips: Iterable[Clip]) -> list[Window]:
    """The places of the clips in films; empty for clips from other sources."""
    return [clip.window for clip in clips if clip.window is not None]


def _inputs(model: CausalDiffuser, settings: Settings, clips: Iterable[Clip]) -> list[Input]:
    source, prompts = source_of(settings, model), prompts_file(settings, model)
    if prompts:
        return [Input.read("prompts", Path(prompts))]
    if latents.is_file(source):
        return [Input.read("latents", Path(source))]
    world = open_world(source)
    if isinstance(world, RecordedClips):
        read = dict.fromkeys(world.files(seeds_of(settings)))
        return [Input.read("recording", file) for file in read]
    films = dict.fromkeys(window.file for window in windows_of(clips))
    return [Input.read("film", film) for film in films]
