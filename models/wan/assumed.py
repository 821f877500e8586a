"""Assumptions about a Wan checkpoint: how it was trained, and so how to sample it.

The files of causal models hold only weights, so the assumptions come from the path, which is weak evidence.
The settings `variant` and `frames_per_chunk` override it. A model's metadata lists each assumption and why.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from framelens.diffusion.schedule import Sampling
from framelens.records import read_json_object

VARIANTS = ("auto", "bidirectional", "diffusion-forcing", "few-step")
"""Not causal; causal with many steps (trained by diffusion or teacher forcing); distilled."""
MANY_STEPS = 50
SHIFT, CAUSVID_SHIFT = 5.0, 8.0
"""Shift of the noise levels of Wan 2.1 and of the causal models made from it; the same of CausVid."""


@dataclass(frozen=True)
class Hint:
    """A part of a path and the variant that it means; `sampling` None is the variant's sampling."""

    part: str
    variant: str
    sampling: Sampling | None = None


FEW_STEPS = Sampling(4, SHIFT, renoise=True)
"""Timesteps 1000, 750, 500 and 250, shifted: those of Self-Forcing and of most later models."""
CAUSVID = Sampling(3, CAUSVID_SHIFT, renoise=True, levels=(1.0, 0.757, 0.522))
"""CausVid's timesteps 1000, 757 and 522, which are 1, 0.28 and 0.12 under its shift, rounded."""
HINTS = (
    Hint("ar_diffusion", "diffusion-forcing"),
    Hint("diffusion_forcing", "diffusion-forcing"),
    Hint("teacher_forcing", "diffusion-forcing"),
    Hint("1step", "few-step", Sampling(1, SHIFT, renoise=True)),
    Hint("2step", "few-step", Sampling(2, SHIFT, renoise=True)),
    Hint("warp_4step", "few-step", Sampling(4, CAUSVID_SHIFT, renoise=True)),  # CausVid in 4 steps
    Hint("bidirectional_checkpoint", "bidirectional", CAUSVID),  # CausVid's weights before it was made causal
    Hint("causvid", "few-step", CAUSVID),
    Hint("autoregressive_checkpoint", "few-step", CAUSVID),
    Hint("wan_causal_ode", "few-step", CAUSVID),
    Hint("rolling_forcing", "few-step", Sampling(5, SHIFT, renoise=True)),
    Hint("rollingforcing", "few-step", Sampling(5, SHIFT, renoise=True)),
    Hint("self_forcing", "few-step"),
    Hint("self_gradient_forcing", "few-step"),
    Hint("causal_forcing", "few-step"),
    Hint("causal_ode", "few-step"),
    Hint("causal_cd", "few-step"),
    Hint("ode_init", "few-step"),
    Hint("longlive", "few-step"),
    Hint("dmd", "few-step"),
)
"""The first match counts; "-" equals "_" in a path, and upper case equals lower case."""
CHUNKS = {"framewise": 1, "chunkwise": 3}
DEFAULT_CHUNK = {"bidirectional": 1, "diffusion-forcing": 1, "few-step": 3}


@dataclass(frozen=True)
class Assumed:
    """How a checkpoint is run, and the reasons for it."""

    variant: str
    sampling: Sampling
    frames_per_chunk: int
    because: str

    def values(self) -> dict[str, Any]:
        """As plain values, for a model's metadata."""
        return asdict(self) | {"sampling": self.sampling.describe()}


def assume(path: Path, options: Mapping[str, Any]) -> Assumed:
    """The variant from `options`, else from the path, else a bidirectional network with many steps.

    ValueError for an unknown variant.
    """
    asked, chunk = options["variant"], options["frames_per_chunk"]
    if asked not in VARIANTS:
        raise ValueError(f"no variant is called {asked!r}; there are {', '.join(VARIANTS)}")
    place = "/".join(_telling_parts(path)).lower().replace("-", "_")
    hint = next((hint for hint in HINTS if hint.part in place), None)
    if asked != "auto":
        reasons, variant = [f"variant {asked!r} was requested"], asked
        hint = hint if hint is not None and hint.variant == asked else None
    else:
        variant = "bidirectional" if hint is None else hint.variant
        found = "names no causal variant" if hint is None else f"contains {hint.part!r}"
        reasons = [f"the path {found}"]
    if chunk is None:
        chunk = next((n for part, n in CHUNKS.items() if part in place), DEFAULT_CHUNK[variant])
    else:
        reasons.append("frames_per_chunk was requested")
    sampling = hint.sampling if hint is not None and hint.sampling is not None else None
    if sampling is None:
        sampling = FEW_STEPS if variant == "few-step" else Sampling(MANY_STEPS, scheduled_shift(path, SHIFT))
    return Assumed(variant, sampling, chunk, ", ".join(reasons))


def scheduled_shift(path: Path, otherwise: float) -> float:
    """The shift of noise levels in the scheduler's configuration beside a network, if there is one."""
    file = path.parent / "scheduler" / "scheduler_config.json"
    if not file.exists():
        return otherwise
    config = read_json_object(file)
    return float(config.get("flow_shift") or config.get("shift") or otherwise)


def _telling_parts(path: Path) -> list[str]:
    """The parts of a path that name a checkpoint: the last two, and the repository in a hub cache."""
    return [part for part in path.parts[:-2] if part.startswith("models--")] + list(path.parts[-2:])
