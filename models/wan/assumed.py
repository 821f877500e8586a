"""Assumptions about a Wan checkpoint: how it was trained, and so how to sample it.

The files of causal models hold only weights, so the assumptions come from the path, which is weak evidence.
The settings `variant` and `frames_per_chunk` override it. A model's metadata lists each assumption and why.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from framelens.diffusion.schedule import Sampling
from framelens.records import read_json_object

VARIANTS = ("auto", "bidirectional", "diffusion-forcing", "few-step")
"""Not causal; causal with many steps (trained by diffusion or teacher forcing); distilled."""
MANY_STEPS = 50
DISTILLED = {"critic", "generator"}
"""Keys of a trainer's file that tell that its generator was distilled: the critic is trained beside it."""
GENERAL = re.compile(
    r"((pytorch_|diffusion_pytorch_)?(model|weights|checkpoints?|ckpts?|transformer|iter|step|epoch))?"
    r"([_-]?(model|ema|step|iter))?([_=-]*\d+)*(\.\w+)?"
)
"""Names of files and folders that say nothing about a network, as checkpoint_model_000600 or model.pt."""
OTHER_LEVELS = ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "dynamic_shifting")
"""Settings of a scheduler, after `use_`, that give noise levels that we do not make."""
FLOW = "flow_prediction"
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


def assume(path: Path, options: Mapping[str, Any], keys: Collection[str] = ()) -> Assumed:
    """The variant from `options`, else from the path, else a bidirectional network with many steps.

    ValueError for an unknown variant.
    """
    asked, chunk = options["variant"], options["frames_per_chunk"]
    if asked not in VARIANTS:
        raise ValueError(f"no variant is called {asked!r}; there are {', '.join(VARIANTS)}")
    place = "/".join(_telling_parts(path)).lower().replace("-", "_")
    hint = next((hint for hint in HINTS if _is_in(hint.part, place)), None)
    distilled = hint is None and DISTILLED <= set(keys)
    if asked != "auto":
        reasons, variant = [f"variant {asked!r} was requested"], asked
        hint = hint if hint is not None and hint.variant == asked else None
    else:
        variant = "few-step" if distilled else "bidirectional" if hint is None else hint.variant
        found = "names no causal variant" if hint is None else f"contains {hint.part!r}"
        reasons = [f"the file has {' and '.join(sorted(DISTILLED))}" if distilled else f"the path {found}"]
    if chunk is None:
        chunk = next((n for part, n in CHUNKS.items() if part in place), DEFAULT_CHUNK[variant])
    else:
        reasons.append("frames_per_chunk was requested")
    sampling = hint.sampling if hint is not None and hint.sampling is not None else None
    if sampling is None:
        shift = scheduled_shift(path, SHIFT)
        few = replace(FEW_STEPS, shift=shift)
        sampling = few if variant == "few-step" else Sampling(MANY_STEPS, shift)
    return Assumed(variant, sampling, chunk, ", ".join(reasons))


def scheduled_shift(path: Path, otherwise: float) -> float:
    """The shift of noise levels in the scheduler's configuration beside a network, if there is one."""
    file = path.parent / "scheduler" / "scheduler_config.json"
    if not file.exists():
        return otherwise
    config = read_json_object(file)
    _refuse_other_schedules(file, config)
    return float(config.get("flow_shift") or config.get("shift") or otherwise)


def _refuse_other_schedules(file: Path, config: Mapping[str, Any]) -> None:
    """Raises ValueError for settings of a scheduler that change its noise levels or the network's target."""
    on = [f"use_{name}" for name in OTHER_LEVELS if config.get(f"use_{name}")]
    if on:
        raise ValueError(
            f"{file} sets {on[0]}={config[on[0]]!r}: such noise levels are not supported; remove it there to "
            "run the network on shifted uniform levels"
        )
    target = config.get("prediction_type") or FLOW
    if target != FLOW:
        raise ValueError(
            f"{file} says that the network predicts {target!r}; supported is {FLOW!r}, another network comes "
            "through an adapter (the guide is models/README.md)"
        )


def _is_in(part: str, place: str) -> bool:
    """Whether the path contains the hint as words of its own: "dmdpipe" does not contain "dmd"."""
    return re.search(rf"(?<![a-z]){part}(?![a-z])" if part.isalpha() else part, place) is not None


def _telling_parts(path: Path) -> list[str]:
    """The parts of a path that name a checkpoint: the last two that are not general words, and the repository
    in a hub cache."""
    parts = [part for part in path.parts if not GENERAL.fullmatch(part.lower())] or list(path.parts)
    return [part for part in parts[:-2] if part.startswith("models--")] + parts[-2:]
