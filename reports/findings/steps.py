"""Finding 1: are the features of early and middle layers repeated over denoising steps?"""

import numpy as np
import xarray as xr

from framelens.reports.drawing.averages import off_diagonal, spelled, summary
from framelens.reports.drawing.layers import depth_of
from framelens.reports.findings.findings import Check, Finding, above, mean_of_part, part, unmeasured
from framelens.reports.plots.depth import invariance
from framelens.reports.runs import Run

EARLY_AND_MIDDLE = 2 / 3
REPEATED = 0.8
GAIN = 0.05
MARGIN = 0.1
CLAIM = "Early and middle layers repeat their features over denoising steps."
REASONS = [
    f"Early and middle layers are the first {EARLY_AND_MIDDLE:.0%} of the blocks: Bai et al. 2026 report the "
    "layers up to 22 of 30 as repeated.",
    f"Repeated means a mean centred cosine above {REPEATED}: that paper reports above 0.95 raw, and names a "
    "fall to 0.8 as its exception.",
    f"Learned means above random weights by {GAIN}: the null is one initialisation, another could differ by "
    "less. Where random weights already score near 1, this measure cannot show learning.",
    f"Features agree over noise draws when their centred cosine exceeds its nulls by {MARGIN}: unrelated "
    "features scatter by a few hundredths around 0.",
]
QUESTIONS = (
    f"Are features repeated, above {REPEATED}?",
    f"Was it learned: more than with random weights, by {GAIN}?",
    f"Does it come from the context: more than its nulls by {MARGIN} in an early or middle layer?",
)


def find(run: Run) -> Finding:
    """Similarity against 0.8 and against random weights; agreement of noise draws against its nulls."""
    tests, remarks = [unmeasured(question, "step_similarity") for question in QUESTIONS[:2]], []
    if not run.missing(("step_similarity",)):
        values = {
            network: off_diagonal(
                run.read("step_similarity", "centred_cosine", network=network).centred_cosine
            )
            for network in run.networks("step_similarity")
        }
        parts = {n: mean_of_part(v.mean("frame"), 0, EARLY_AND_MIDDLE) for n, v in values.items()}
        tests, remarks = [_repeated(parts), _learned(parts)], [_raw(run)]
    if run.missing(("noise_invariance",)):
        tests.append(unmeasured(QUESTIONS[2], "noise_invariance"))
    else:
        test, remark = _from_context(run)
        tests.append(test)
        remarks.append(remark)
    return Finding(CLAIM, tests, remarks, REASONS)


def _repeated(parts: dict[str, xr.DataArray]) -> Check:
    value = summary(parts["trained"])
    measured = f"Centred cosine of two different steps, early and middle layers, trained: {spelled(value)}."
    return Check(QUESTIONS[0], measured, above(value, REPEATED))


def _learned(parts: dict[str, xr.DataArray]) -> Check:
    if "random" not in parts:
        return unmeasured(QUESTIONS[1], "a network with random weights")
    gain = summary(parts["trained"] - parts["random"])
    measured = f"Random weights: {spelled(summary(parts['random']))}; trained minus random: {spelled(gain)}."
    return Check(QUESTIONS[1], measured, above(gain, GAIN))


def _raw(run: Run) -> str:
    """Raw similarity of the middle block beside the embedding's, which no layer has worked on."""
    raw = off_diagonal(run.read("step_similarity", "cosine", network="trained").cosine).mean("frame")
    depth = depth_of(raw)
    middle = depth.blocks[len(depth.blocks) // 2]
    text = f"Raw cosine at {depth.name(middle)}: {spelled(summary(raw.isel(layer=middle)))}"
    if min(depth.layers) < 0:
        embedding = summary(raw.isel(layer=depth.layers.index(-1)))
        text += f"; at the embedding, where it only says how alike the noisy inputs are: {spelled(embedding)}"
    return text + "."


def _from_context(run: Run) -> tuple[Check, str]:
    """Whether noise draws agree more than every null in an early or middle layer, and from where."""
    stored = invariance(run)
    trained = stored["trained"]
    null = trained.other_context
    if "random" in stored:
        null = np.maximum(null, stored["random"].centred_cosine)
    value, gain = summary(trained.centred_cosine), summary(trained.centred_cosine - null)
    depth = depth_of(gain)
    early = part(depth, 0, EARLY_AND_MIDDLE)
    best = max(early, key=lambda position: float(gain["mean"][position]))
    measured = (
        f"Two noise draws at sigma {float(trained.sigma):.2g}, same context: clearest among these layers at "
        f"{depth.name(best)}, {spelled(value.isel(layer=best))}; minus the larger null: "
        f"{spelled(gain.isel(layer=best))}."
    )
    if np.isnan(gain["low"]).all():
        return Check(
            QUESTIONS[2], measured, None
        ), "Too few clips to say from which layer on noise draws agree."
    risen = [position for position in depth.blocks if float(gain["low"][position]) > MARGIN]
    test = Check(QUESTIONS[2], measured, bool(set(early) & set(risen)))
    if not risen:
        return test, "In no layer do noise draws agree more than their nulls."
    everywhere = risen == [position for position in depth.blocks if position >= risen[0]]
    after = "and in every layer after it" if everywhere else "but not in every layer after it"
    return test, f"Noise draws agree more than their nulls first at {depth.name(risen[0])}, {after}."
