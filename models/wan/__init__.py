"""Wan 2.1 and 2.2, and the causal models made of them: Self-Forcing, CausVid, Causal-Forcing, LongLive.

    model = models.load("zhuhz22/Causal-Forcing/framewise/ar_diffusion.pt")
    model = models.load("gdhe17/Self-Forcing/checkpoints/self_forcing_dmd.pt")
    model = models.load("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", frames_per_chunk=3, dtype="bfloat16")
    model = models.load("Wan-AI/Wan2.2-T2V-A14B-Diffusers", expert="low")
    model = models.load("longlive_base.pt", frames_per_chunk=3, window=6, sink=3)

Files have the tensor names of Wan's own code or of diffusers, alone or in a folder with a config.json. The
stock network sees a whole clip at once: `whole` is that pass, and a network that was never made causal offers
it as `bidirectional` too. Here a chunk of frames sees itself and the past through a cache of rotated keys.
Finished frames are read at timestep 0, a shorter prompt is padded with zeros that receive attention, and
timesteps are 1000 sigma, not rounded, as in Self-Forcing's code. Details:

- `window` and `sink` do not count the current chunk. The authors' local_attn_size counts all frames, so their
  12 with a sink of 3 and chunks of 3 is window=6, sink=3 (LongLive). Self-Gradient-Forcing uses window 16 and
  sink 4 frame by frame, 6 and 3 in chunks of 3.
- The first chunk is as long as the others (independent_first_frame is off, as for all text-to-video models).
- Causal-Forcing++ takes 4 steps for the first frame and 1 or 2 for the others; `sampling` has the latter,
  and `framelens evaluate --steps 4,2` takes both.
- Rolling-Forcing rotates its first chunk again and denoises several chunks at different noise levels
  together. Its weights load, but these passes differ from its sampler's.
- Wan 2.2's A14B has two experts and one is loaded: "high" for noise levels above its boundary, "low" below.
- Merge LoRA weights before loading.
"""

from collections.abc import Collection
from typing import Any

from framelens.models.loading.checkpoint import Checkpoint
from framelens.models.wan.assumed import assume
from framelens.models.wan.config import WanConfig as Config
from framelens.models.wan.config import config_of
from framelens.models.wan.names import SKYREELS_MARK, is_original, is_wan_like
from framelens.models.wan.network import Wan
from framelens.models.wan.presets import PRESETS, build, config, write_released
from framelens.models.wan.read import stock, with_our_names
from framelens.records import read_json_object
from framelens.records.extras import extra

__all__ = [
    "CLASSES",
    "DEFAULTS",
    "PRESETS",
    "Config",
    "build",
    "config",
    "read",
    "recognises",
    "write_released",
]
CLASSES: tuple[str, ...] = (
    "WanTransformer3DModel", "CausalWanTransformer3DModel", "WanModel", "CausalWanModel",
)  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "height": None,
    "width": None,
    "frames_per_chunk": None,
    "text_tokens": 512,
    "heads": None,
    "variant": "auto",
    "expert": "high",
}
"""Settings that a checkpoint does not store. Height and width of latents (None: 60 x 104, or 44 x 80 with 48
channels); frames per chunk (None: from the path, else 1, or 3 for few steps); tokens of a padded prompt;
heads if no config.json states them (None: 128 channels each); how it was trained (VARIANTS); which expert."""
EXPERTS = ("high", "low")
OTHER_KINDS = ("i2v", "flf2v", "vace", "s2v", "animate")


def recognises(names: Collection[str]) -> bool:
    """Whether these are the tensor names of a Wan transformer, in its own code or in diffusers."""
    return is_wan_like(names) and SKYREELS_MARK not in names


def read(checkpoint: Checkpoint, options: dict[str, Any]) -> tuple[Wan, dict[str, Any]]:
    """The network of a Wan checkpoint, and its metadata with assumptions; ValueError for other networks."""
    kind = str((checkpoint.config or {}).get("model_type", "t2v"))
    if kind in OTHER_KINDS:
        raise ValueError(f"{checkpoint.path} is a {kind} network; only text-to-video networks are supported")
    if options["expert"] not in EXPERTS:
        raise ValueError(f"no expert is called {options['expert']!r}; there are {', '.join(EXPERTS)}")
    with extra("families"):
        from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    taken = assume(checkpoint.path, options, checkpoint.keys)
    names = "Wan's own" if is_original(checkpoint.weights) else "diffusers'"
    checkpoint = with_our_names(checkpoint)
    config = config_of(checkpoint, options, taken.frames_per_chunk, taken.variant != "bidirectional")
    network = stock(WanTransformer3DModel, config.for_diffusers(), checkpoint)
    model = Wan(network, config, taken.sampling)
    about = {"network": "wan", "config": model.describe(), "origin": f"Wan, {names} names"}
    return model, about | {"assumed": taken.values()} | _expert(checkpoint, options["expert"])


def _expert(checkpoint: Checkpoint, expert: str) -> dict[str, Any]:
    """Which of a pipeline's two networks this is, and the noise level between them; {} for one network."""
    pipeline = checkpoint.path.parent
    if not (pipeline / "transformer_2").is_dir() or not (pipeline / "model_index.json").exists():
        return {}
    boundary = read_json_object(pipeline / "model_index.json").get("boundary_ratio")
    return {"expert": expert, "boundary": boundary}
