"""Every streaming statistic over whole rollouts: teacher-forced and free-running, trained and random network.

Also keeps what the trained network generated, and the truth.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from framelens.analyses import statistics
from framelens.analyses.cost import WatchedShape
from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.diffusion.own_tokens import own_tokens, require_rows
from framelens.diffusion.sampler import ForwardPass, rollout
from framelens.hooks import Together, together
from framelens.hooks.attention import AttentionTap
from framelens.hooks.trace import Trace
from framelens.probes.chunk.layers import select_patterns
from framelens.probes.chunk.scale import Scale
from framelens.probes.run.costs import Evaluations
from framelens.probes.run.finite import require_finite
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.settings import MODES, Settings
from framelens.probes.run.shape import NETWORK_COUNT, RunShape


def measure(probed_clip: ProbedClip) -> dict[str, xr.Dataset]:
    """The statistics' Datasets with dims (clip, network, mode, ...), and `samples`."""
    by_network, drawn = {}, {}
    chosen = chosen_statistics(probed_clip.settings)
    for network, model in probed_clip.networks.items():
        by_mode = {}
        for mode in MODES:
            video, by_mode[mode] = watched_rollout(probed_clip, model, mode, chosen)
            if network == "trained":
                drawn[mode] = video
        by_network[network] = _join(by_mode, "mode")
    return _join(by_network, "network") | {"samples": _samples(probed_clip, drawn)}


def evaluations(run: RunShape) -> Evaluations:
    """Every step of the probed chunks, teacher-forced, and of all chunks after the context, free-running; in
    each branch of guidance."""
    clips = NETWORK_COUNT * run.branches
    passes = clips * run.settings.steps * (len(run.probed) + run.drawn)
    return Evaluations(passes * run.layers, clips * len(MODES) * run.encoding(run.chunks - 1))


def kept_bytes(run: RunShape) -> int:
    """The past of each branch, and what the statistics keep of one rollout."""
    settings = run.settings
    watched = WatchedShape(
        layers=run.layers,
        heads=run.heads,
        width=run.d_model,
        tokens=run.tokens,
        steps=len(settings.watched_steps),
        pasts=tuple(run.past_frames(frame) for frame in run.probed),
        chunk=run.chunk,
        value_bytes=run.value_bytes,
    )
    costs = [statistics.cost_of(name, settings, watched) for name in chosen_statistics(settings)]
    return run.cache_bytes(run.chunks, run.branches) + sum(cost.kept_bytes for cost in costs)


def chosen_statistics(settings: Settings) -> tuple[str, ...]:
    """The statistics of a run: those that the settings name, or all."""
    return settings.statistics or tuple(statistics.names())


def _join(parts: dict[str, dict[str, xr.Dataset]], dim: str) -> dict[str, xr.Dataset]:
    """Datasets of one name side by side along a new axis after `clip`."""
    joined = {}
    for name in next(iter(parts.values())):
        dataset = xr.concat(
            [datasets[name] for datasets in parts.values()], dim, data_vars="all", join="exact"
        )
        joined[name] = dataset.assign_coords({dim: list(parts)}).transpose("clip", dim, ...)
    return joined


def watched_rollout(
    probed_clip: ProbedClip, model: CausalDiffuser, mode: str, chosen: tuple[str, ...]
) -> tuple[Tensor, dict[str, xr.Dataset]]:
    """The video that the model generates for the clip, and the chosen statistics of its passes."""
    settings, draw = probed_clip.settings, partial(draw_rollout, probed_clip, model, mode)
    streams = {name: statistics.new(name, settings) for name in chosen if _is_readable(name, model, settings)}
    try:
        with make_instruments(
            model, streams, set(probed_clip.probed), set(settings.watched_steps)
        ) as attached:
            video = draw(attached.on_pass)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        # A decomposition failed because of NaN before the rollout ended.
        require_finite(model, draw(lambda at: None), draw)
        raise
    require_finite(model, video, draw)
    return video, {name: statistic.result() for name, statistic in streams.items()}


def _is_readable(name: str, model: CausalDiffuser, settings: Settings) -> bool:
    """Whether the model offers a point that the statistic reads; ValueError if none and it was requested."""
    reads = statistics.load(name).reads
    if reads == "attention" or select_patterns(model, reads):
        return True
    if name in settings.statistics:
        raise ValueError(
            f"{name} reads {' and '.join(reads)}, and the model has no such hook point: add it to "
            "hook_dict, or leave the statistic out of --statistics"
        )
    return False


def draw_rollout(
    probed_clip: ProbedClip,
    model: CausalDiffuser,
    mode: str,
    on_pass: Callable[[ForwardPass], None],
    denoised: Collection[int] | None = None,
    rows: int = 1,
) -> Tensor:
    """The video that the model generates; teacher-forced at the probed chunks, or at `denoised`.

    With several `rows`, the same clip with the same noise in each of them.
    """
    is_forced, clip = mode == "teacher_forced", probed_clip.clip
    video = clip.video.expand(rows, *clip.video.shape[1:])
    return rollout(
        probed_clip.sampler(model),
        probed_clip.noise("rollouts").expand(rows, *clip.video.shape[1:]),
        probed_clip.sigmas,
        None if clip.cond is None else clip.cond.expand(rows, *clip.cond.shape[1:]),
        video if is_forced else video[:, : probed_clip.settings.context],
        teacher_forced=is_forced,
        denoised_frames=set(denoised or probed_clip.probed) if is_forced else None,
        on_pass=on_pass,
        renoise=probed_clip.renoise_seed("rollouts"),
    )


def make_instruments(
    model: CausalDiffuser, streams: dict[str, Any], frames: set[int], steps: set[int] | None = None
) -> Together:
    """The instruments that feed the statistics from denoising passes of those frames, at those steps.

    Values are the tokens of the current chunk (`own_tokens`). Attention of an encoder that asks for such a
    frame is read in the `ask` pass, at sigma 1 as the first step; layers that denoise are read only there.
    """
    made = []
    for name, statistic in streams.items():
        reads = statistics.load(name).reads
        if reads == "attention":
            add = partial(_add_once, traits(model).denoising_stack, statistic)
            sink = _of_probed_frames(add, frames, steps, {"denoise", "ask"})
            made.append(AttentionTap(model.attn_dict, "*", sink))
        else:
            sink = _of_probed_frames(partial(_add_own_tokens, model, statistic), frames, steps, {"denoise"})
            made.append(Trace(model.hook_dict, select_patterns(model, reads), sink))
    return together(*made)


def _add_once(stack: str, statistic: Any, at: ForwardPass, name: str, pattern: Any) -> None:
    """Adds the pattern, unless the module also denoises: an `ask` pass may run the decoder for its prefix."""
    require_rows(name, len(pattern.q) // pattern.fold, clips=1)
    if at.role == "denoise" or not name.startswith(stack):
        statistic.add(at, name, pattern)


def _add_own_tokens(model: CausalDiffuser, statistic: Any, at: ForwardPass, name: str, value: Tensor) -> None:
    statistic.add(at, name, own_tokens(model, name, value, clips=1))


def _of_probed_frames(add: Callable, frames: set[int], steps: set[int] | None, roles: set[str]) -> Callable:
    def sink(at: ForwardPass, name: str, value: Any) -> None:
        is_watched = at.frame in frames and (steps is None or at.step in steps)
        if is_watched and at.role in roles and at.branch == "cond":
            add(at, name, value)

    return sink


def _samples(probed_clip: ProbedClip, drawn: dict[str, Tensor]) -> xr.Dataset:
    scale = Scale.of(probed_clip.networks["trained"], probed_clip.clip.video)
    truth = _numpy(probed_clip.clip.video)
    video = np.stack([_numpy(drawn[mode]) for mode in drawn], axis=1)
    given = _numpy(probed_clip.clip.video[:, : probed_clip.settings.context])
    mean = given.mean(axis=1, keepdims=True)
    frames = np.arange(probed_clip.frames)
    before = frames // probed_clip.chunk * probed_clip.chunk - 1
    copied = np.where(before < 0, np.nan, scale.psnr(truth[:, np.maximum(before, 0)], truth))
    sampled = _is_sampled(probed_clip, list(drawn))
    measured = np.where(sampled[None], scale.psnr(video, truth[:, None]), np.nan)
    mean_psnr = scale.psnr(np.broadcast_to(mean, truth.shape), truth)
    return xr.Dataset(
        _describe_samples(scale, video, truth, measured, copied, mean_psnr),
        {"mode": list(drawn), "frame": frames},
        {"latent": int(scale.is_latent), "frames_per_chunk": probed_clip.chunk},
    )


def _describe_samples(
    scale: Scale,
    video: np.ndarray,
    truth: np.ndarray,
    measured: np.ndarray,
    copied: np.ndarray,
    mean_psnr: np.ndarray,
) -> dict[str, tuple]:
    """Videos and their signal-to-noise ratios with axes and units."""
    image = ("frame", "channel", "row", "col")
    values = scale.values if scale.is_latent else "pixels, -1 black to 1 white"
    units = {"units": "1", "long_name": values}
    decibel = {"units": "dB", "long_name": f"peak signal-to-noise ratio, {scale.peak_name}"}
    return {
        "video": (("clip", "mode", *image), video, units),
        "truth": (("clip", *image), truth, units),
        "psnr": (("clip", "mode", "frame"), measured, decibel),
        "psnr_copy_last": (
            ("clip", "frame"),
            copied,
            decibel | {"copied": "the last true frame before the chunk"},
        ),
        "psnr_mean_frame": (("clip", "frame"), mean_psnr, decibel),
    }


def _is_sampled(probed_clip: ProbedClip, modes: list[str]) -> np.ndarray:
    frames = np.arange(probed_clip.frames)
    which = {
        "teacher_forced": np.isin(frames // probed_clip.chunk * probed_clip.chunk, probed_clip.probed),
        "free_running": frames >= probed_clip.settings.context,
    }
    return np.stack([which[mode] for mode in modes])


def _numpy(video: Tensor) -> np.ndarray:
    return video.to("cpu", torch.float32).numpy()
