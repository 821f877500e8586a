"""Writes clips of a procedural world into a file, as they are, with their prompts or actions.

A network that takes such frames can then be probed without any word on what it was trained on.
"""

from pathlib import Path

from framelens import videos
from framelens.records import origin
from framelens.videos import latents, worlds


def write_world(name: str, clips: int, frames: int, out: Path, command: str) -> Path:
    """Writes that many held-out clips [n f c h w] of the world; ValueError for an unknown one."""
    batch = worlds.load(name).clips(range(videos.VALIDATION_SEED, videos.VALIDATION_SEED + clips), frames)
    about = {"world": name, **origin(command, "numpy", "safetensors")}
    return latents.write(out, batch.video, text=batch.text, actions=batch.actions, about=about)
