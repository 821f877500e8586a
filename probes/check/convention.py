"""Check of the velocity's convention: one step from a slightly noisy known frame leads to the clean one.

Random frames cannot show it, so it needs clips like those that the network was trained on: a world that it
names, or those of `--videos`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from framelens.diffusion.schedule import add_noise
from framelens.probes.check.checked_model import Check, CheckedModel
from framelens.probes.chunk.pasts import Clip
from framelens.probes.run.clips import is_own, read_clips
from framelens.probes.run.settings import Settings

SIGMA = 0.25
"""The noise level: most of the frame is visible, and noise is still most of a velocity."""
BETTER = 0.5
"""Another reading of the output is the right one if its error is below this share of the velocity's."""
CLIPS = 2
UNTRAINED = (
    "give --videos clips like those that it was trained on; if they are, look at what sigma becomes in the "
    "network, a timestep is usually 1000 sigma"
)

READINGS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "a velocity": (lambda x, out: x - SIGMA * out, ""),
    "a velocity of the other sign, x0 - eps": (lambda x, out: x + SIGMA * out, "give minus the output"),
    "the noise eps": (lambda x, out: (x - SIGMA * out) / (1 - SIGMA), "give (eps - x) / (1 - sigma)"),
    "the clean frame x0": (lambda x, out: out, "give (x - x0) / sigma"),
}
"""What an output could be: the clean frame that it predicts from x at SIGMA, and what to do."""


def convention(checked: CheckedModel) -> Check:
    """The output is eps - x0: one step from a slightly noisy known frame leads to the clean one."""
    claim = "one step from a slightly noisy known frame leads nearer to the clean one"
    if is_own(_settings(checked), checked.model):
        why = "no clips are known; give --videos clips like those that it was trained on"
        return Check("convention", claim, why, None)
    try:
        clips = known_clips(checked)
    except (ValueError, OSError) as error:
        return Check("convention", claim, f"its clips cannot be read: {error}", None)
    errors, still = _errors(checked, clips)
    plain = errors["a velocity"]
    best = min(errors, key=lambda reading: errors[reading])
    sizes = f"squared error at sigma {SIGMA} {plain:.1e}, of the noisy frame itself {still:.1e}"
    if errors[best] < min(BETTER * plain, still):
        found = f"{sizes}; read as {best} it is {errors[best]:.1e}"
        return Check("convention", claim, found, False, f"the network gives {best}: {READINGS[best][1]}")
    if plain >= still:
        found = f"{sizes}: it was not trained, or not on such clips"
        return Check("convention", claim, found, None if checked.videos is None else False, UNTRAINED)
    return Check("convention", claim, sizes, True)


def known_clips(checked: CheckedModel) -> list[Clip]:
    """Clips like those that the model was trained on; ValueError or FileNotFoundError for none."""
    return read_clips(_settings(checked), checked.model, checked.chunks * checked.chunk)


def _settings(checked: CheckedModel) -> Settings:
    device, dtype = str(checked.device), str(checked.dtype)[6:]
    return Settings(clips=CLIPS - 1, videos=checked.videos, device=device, dtype=dtype)


@torch.no_grad()
def _errors(checked: CheckedModel, clips: list[Clip]) -> tuple[dict[str, float], float]:
    """The squared error of each reading of the output, and of the noisy frame taken as the clean one."""
    last = checked.chunks - 1
    span, sums, still = checked.frames(last), dict.fromkeys(READINGS, 0.0), 0.0
    for number, clip in enumerate(clips):
        context = checked.remember(clip.video, last, clip.cond)
        clean, noise = clip.video[:, span], checked.clip(50 + number)[:, span]
        x = add_noise(clean, noise, clean.new_full(clean.shape[:2], SIGMA))
        out = checked.model.denoise(x, torch.full((1,), SIGMA, device=checked.device), context)
        for reading, (predict, _) in READINGS.items():
            sums[reading] += (predict(x, out) - clean).float().square().mean().item() / CLIPS
        still += (x - clean).float().square().mean().item() / CLIPS
    return sums, still
