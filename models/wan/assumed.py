"""What a Wan checkpoint does not say of itself: how it was trained, and so how it is sampled.

The files of causal models hold weights and nothing else, so their path is asked, which is weak evidence:
`variant` and `frames_per_chunk` overrule it, and a model's metadata tells what was assumed and why.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from framelens.diffusion.schedule import Sampling
from framelens.records import read_json_object

VARIANTS = ("auto", "bidirectional", "diffusion-forcing", "few-step")
"""Never causal; causal, for many steps (trained by diffusion or teacher forcing); distilled."""
MANY_STEPS = 50
SHIFT, CAUSVID_SHIFT = 5.0, 8.0
"""Of the noise levels of Wan 2.1 and of all causal models made of it; of CausVid."""


@dataclass(frozen=True)
class Hint:
    """What a part of a path says; `sampling` None is that of the variant."""

    part: str
    variant: str
    sampling: Sampling | None = None


FEW_STEPS = Sampling(4, SHIFT, renoise=True)
"""Timesteps 1000, 750, 500 and 250, shifted: Self-Forcing's, and those of most that came after it."""
CAUSVID = Sampling(3, CAUSVID_SHIFT, renoise=True, levels=(1.0, 0.757, 0.522))
"""CausVid's timesteps 1000, 757 and 522, which are 1, 0.28 and 0.12 under its shift, rounded."""
HINTS = (
    Hint("ar_diffusion", "diffusion-forcing"),
    Hint("diffusion_forcing", "diffusion-forcing"),
    Hint("teacher_forcing", "diffusion-forcing"),
    Hint("1step", "few-step", Sampling(1, SHIFT, renoise=True)),
    Hint("2step", "few-step", Sampling(2, SHIFT, renoise=True)),
    Hint("warp_4step", "few-step", Sampling(4, CAUSVID_SHIFT, renoise=True)),  # CausVid in 4 steps
    Hint("bidirectional_checkpoint", "bidirectional", CAUSVID),  # those before it was made causal
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
"""The first that matches counts; in a path "-" and "_" are the same, as are capitals."""
CHUNKS = {"framewise": 1, "chunkwise": 3}
DEFAULT_CHUNK = {"bidirectional": 1, "diffusion-forcing": 1, "few-step": 3}


@dataclass(frozen=True)
class Assumed:
    """How a checkpoint is run, and what that rests on."""

    variant: str
    sampling: Sampling
    frames_per_chunk: int
    because: str

    def values(self) -> dict[str, Any]:
        """As plain values, for a model's metadata."""
        return asdict(self) | {"sampling": self.sampling.describe()}


def assume(path: Path, options: Mapping[str, Any]) -> Assumed:
    """What is asked for, else what the path hints at, else a bidirectional network for many steps.

    ValueError for a variant that there is not.
    """
    asked, chunk = options["variant"], options["frames_per_chunk"]
    if asked not in VARIANTS:
        raise ValueError(f"no variant is called {asked!r}; there are {', '.join(VARIANTS)}")
    place = "/".join(_telling_parts(path)).lower().replace("-", "_")
    hint = next((hint for hint in HINTS if hint.part in place), None)
    if asked != "auto":
        reasons, variant = [f"variant {asked!r} was asked for"], asked
        hint = hint if hint is not None and hint.variant == asked else None
    else:
        variant = "bidirectional" if hint is None else hint.variant
        found = "names no causal variant" if hint is None else f"has {hint.part!r} in it"
        reasons = [f"the path {found}"]
    if chunk is None:
        chunk = next((n for part, n in CHUNKS.items() if part in place), DEFAULT_CHUNK[variant])
    else:
        reasons.append("frames_per_chunk was asked for")
    sampling = hint.sampling if hint is not None and hint.sampling is not None else None
    if sampling is None:
        sampling = FEW_STEPS if variant == "few-step" else Sampling(MANY_STEPS, scheduled_shift(path, SHIFT))
    return Assumed(variant, sampling, chunk, ", ".join(reasons))


def scheduled_shift(path: Path, otherwise: float) -> float:
    """The shift of noise levels that the scheduler beside a network says, if there is one."""
    file = path.parent / "scheduler" / "scheduler_config.json"
    if not file.exists():
        return otherwise
    config = read_json_object(file)
    return float(config.get("flow_shift") or config.get("shift") or otherwise)


def _telling_parts(path: Path) -> list[str]:
    """The parts of a path that name a checkpoint: the last two, and a repository in the hub's cache."""
    return [part for part in path.parts[:-2] if part.startswith("models--")] + list(path.parts[-2:])
