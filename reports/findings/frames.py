"""Finding 2: do deep layers attend little to earlier frames?"""

import numpy as np
import xarray as xr

from framelens.reports.drawing.averages import spelled, summary, uniform_share
from framelens.reports.drawing.layers import depth_of
from framelens.reports.findings.findings import Check, Finding, below, mean_of_part, unmeasured
from framelens.reports.plots.cross_attention import by_head
from framelens.reports.plots.lag import by_lag
from framelens.reports.runs import Run

DEEP = 1 / 4
SHALLOW = 1 / 2
LITTLE = 0.5
MARGIN = 0.1
CLAIM = "Deep layers attend little to earlier frames."
REASONS = [
    f"Deep layers are the last {DEEP:.0%} of the blocks: Bai et al. 2026 cut the last 5 of 30. They are "
    f"compared with the first {SHALLOW:.0%}.",
    f"Little means less than {LITTLE} of what uniform attention gives: half as much is the least that a "
    "reader of the plot would call sparse.",
    f"Less means less by {MARGIN} of the attention or more: below that the mass hardly changes what a layer "
    "can fetch, and another random initialisation could differ as much.",
]
QUESTIONS = (
    f"Is it little, below {LITTLE} of uniform?",
    f"Is it less than in shallow layers, by {MARGIN}?",
    f"Was it learned: less than with random weights, by {MARGIN}?",
)


def find(run: Run) -> Finding:
    """Attention to earlier frames in deep layers against uniform, shallow layers and random weights."""
    if run.missing(("frame_attention",)):
        return Finding(
            CLAIM, [unmeasured(question, "frame_attention") for question in QUESTIONS], [], REASONS
        )
    mass, share = {}, xr.DataArray(np.nan)
    for network in run.networks("frame_attention"):
        stored = run.read("frame_attention", "cross_mass", "uniform", network=network)
        uniform = uniform_share(stored)
        mass[network] = by_head(stored.cross_mass, uniform).mean("head")
        share = uniform.where(uniform.lag >= 1).sum("lag").mean("frame")
    trained = mass["trained"]
    tests = [_little(trained, share), _less(trained), _learned(mass)]
    return Finding(CLAIM, tests, [_peak(run, trained)], REASONS)


def _little(trained: xr.DataArray, share: xr.DataArray) -> Check:
    deep, ratio = (summary(mean_of_part(v, 1 - DEEP, 1)) for v in (trained, trained / share))
    measured = (
        f"The last {DEEP:.0%} of the blocks put {spelled(deep)} of their attention on earlier frames, "
        f"uniform attention {float(share.mean()):.2f}. Ratio: {spelled(ratio)}."
    )
    return Check(QUESTIONS[0], measured, below(ratio, LITTLE))


def _less(trained: xr.DataArray) -> Check:
    change = summary(mean_of_part(trained, 1 - DEEP, 1) - mean_of_part(trained, 0, SHALLOW))
    measured = f"Last {DEEP:.0%} minus first {SHALLOW:.0%} of the blocks: {spelled(change)}."
    return Check(QUESTIONS[1], measured, below(change, -MARGIN))


def _learned(mass: dict[str, xr.DataArray]) -> Check:
    if "random" not in mass:
        return unmeasured(QUESTIONS[2], "a network with random weights")
    gain = summary(mean_of_part(mass["trained"] - mass["random"], 1 - DEEP, 1))
    measured = f"Trained minus random weights, last {DEEP:.0%} of the blocks: {spelled(gain)}."
    return Check(QUESTIONS[2], measured, below(gain, -MARGIN))


def _peak(run: Run, trained: xr.DataArray) -> str:
    """Where most attention goes to the past, and where it is sharpest on one earlier frame."""
    depth, value = depth_of(trained), summary(trained)
    most = int(np.argmax(value["mean"].values))
    mass, share = by_lag(run.read("frame_attention", "mass", "uniform", network="trained"))
    relative = (mass.mean("clip") / share).where(mass.lag >= 1).transpose("layer", "lag")
    layer, lag = np.unravel_index(int(np.nanargmax(relative.values)), relative.shape)
    back = int(relative.lag[lag])
    return (
        f"Most attention to earlier frames: {depth.name(most)}, {spelled(value.isel(layer=most))}. Retrieval "
        f"is sharpest at {depth.name(int(layer))}, {back} frame{'s' * (back != 1)} back: "
        f"{float(relative[layer, lag]):.1f} times that frame's share of the keys. Attention mass is not use."
    )
