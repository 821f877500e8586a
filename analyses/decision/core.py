"""The core of the planner's question: can the past be fetched once, early, and independently of the noise?"""

import numpy as np

from framelens.analyses.decision.conditions import spell_measures, without_benefit
from framelens.analyses.decision.engine import Measured, NotMeasured, Question
from framelens.analyses.decision.evidence import SplitEvidence
from framelens.analyses.decision.kept import MEASURES, THRESHOLD, mean_of, summary
from framelens.analyses.decision.repeated_features import TOKEN_COSINE, TOKEN_COSINE_NULL
from framelens.analyses.decision.words import percent, spell, spell_count, spell_share
from framelens.analyses.scales import scale_of

MARGIN, SHARP = 0.1, 0.9


def kept_when_fetched_once(evidence: SplitEvidence) -> Measured:
    """The kept share where all layers reuse the first step's cross-frame attention, of the worse measure."""
    context, reuse, last = evidence.context_for("reuse"), evidence.data["reuse"], evidence.layers - 1
    if last not in reuse.layer or 0 not in reuse.start:
        raise NotMeasured(f"Reuse from step 0 in all layers, to layer {last}, was not measured.")
    rows = {m: context.kept_share(m, reuse, kind="cross", layer=last, start=0) for m in MEASURES}
    value = summary(np.minimum(*rows.values()))
    text = f"Fetched once, at the first step, the past keeps {spell_share(value)} of its benefit."
    return Measured(value, text, f"{spell_measures(rows)}; the smaller counts.")


def layers_that_need_the_past(evidence: SplitEvidence) -> Measured:
    """The depth from which on the past is not needed when it is fetched at every step."""
    evidence.context_for("cut")
    rows = evidence.curves.depth(THRESHOLD, "live")
    assert rows is not None
    value = summary(rows.astype(float))
    return Measured(
        value, f"Only the first {spell_count(value)} of {evidence.layers} layers need to see the past."
    )


def layers_at_every_step(evidence: SplitEvidence) -> Measured:
    """How many layers run at every step; NotMeasured where that depends on layers that were not measured."""
    evidence.context_for("leave_one_out", "reuse")
    curves, layers = evidence.curves, evidence.layers
    rows, known = (curves.decoder_layers(THRESHOLD, known_only) for known_only in (False, True))
    if rows is None or known is None:
        raise NotMeasured("Reuse from step 0 was not measured.")
    value = summary(rows)
    is_coarse = curves.work is not None and len(curves.work[0]) < layers
    if is_coarse and not value.high < layers and summary(known).mean < layers:
        why = "Too few layers were measured to decide which must run at every step."
        raise NotMeasured(why, float(value.mean))
    return Measured(value, f"{spell_count(value)} of {layers} layers must run at every step.")


def agreement_after_the_encoder(evidence: SplitEvidence) -> Measured:
    """How much more similar two noise draws are with their own past, after the encoder's last layer."""
    context, depth = evidence.context_for("noise_invariance"), evidence.encoder_layers
    stored = evidence.data["noise_invariance"]
    own = stored.isel(sigma=int(np.argmax(stored.sigma.values)))
    if TOKEN_COSINE_NULL not in stored:
        raise NotMeasured("The run is of an older version, without cosines of single tokens: probe again.")
    own = own.sel(layer=depth - 1, network="trained", drop=True)
    cosine, null = (own[name].mean("frame", skipna=False) for name in (TOKEN_COSINE, TOKEN_COSINE_NULL))
    gain = summary(context.rows(cosine - null))
    value = mean_of(cosine, scale_of(TOKEN_COSINE))
    text = f"Tokens of two noise draws are more similar by {spell(gain)} with their own past."
    return Measured(gain, text, f"Median cosine of tokens after layer {depth - 1}: {spell(value)}.")


def sharpness_kept(evidence: SplitEvidence) -> Measured:
    """The frame's gradient energy, the past fetched once and by the encoder only, over the whole model's."""
    context, depth = evidence.context_for("reuse"), evidence.encoder_layers
    reuse = evidence.data["reuse"]
    served = reuse.sharpness.sel(kind="cross_only", layer=depth - 1, start=0)
    value = summary(context.rows(served) / context.rows(reuse.plain_sharpness))
    return Measured(value, f"The frame has {spell_share(value)} of the whole model's gradient energy.")


def all_layers(evidence: SplitEvidence) -> float:
    """The number of layers that denoise."""
    return evidence.layers


CORE = (
    Question(
        "once",
        f"Can the past be fetched once: is {percent(THRESHOLD)} of the benefit kept when what attention "
        "fetches from earlier frames is computed at the first step, from pure noise, and then reused?",
        measure=kept_when_fetched_once,
        threshold=THRESHOLD,
        side="above",
        kind="core",
        asked=f"more than {percent(THRESHOLD)}",
        because="a fine-tune then has to regain at most a tenth",
        failing="what it fetches from its past at the first step is not enough for the later steps",
        not_asked=without_benefit,
    ),
    Question(
        "depth",
        f"Is the past not needed up to the last layer: is {percent(THRESHOLD)} of the benefit kept when only "
        "the first layers see it?",
        measure=layers_that_need_the_past,
        threshold=all_layers,
        side="below",
        kind="core",
        asked="fewer than {} layers",
        because="a decoder needs at least one layer",
        failing="it needs its past up to the last layer",
        not_asked=without_benefit,
    ),
    Question(
        "decoder",
        "Can layers run once per frame: do fewer than all layers have to run at every step?",
        measure=layers_at_every_step,
        threshold=all_layers,
        side="below",
        kind="core",
        asked="fewer than {} layers",
        because="otherwise nothing is saved",
        failing="every layer must run at every step",
        not_asked=without_benefit,
    ),
    Question(
        "invariant",
        "Is it the same for any noise: after the encoder's last layer, are features of two noise draws more "
        f"similar, by {MARGIN}, than where one of them sees another clip's past?",
        measure=agreement_after_the_encoder,
        threshold=MARGIN,
        side="above",
        kind="core",
        asked=f"more than {MARGIN}",
        because="unrelated features vary by a few hundredths around 0",
        failing="what the encoder's layers compute depends on the noise",
        not_asked=without_benefit,
    ),
    Question(
        "sharp",
        f"Is the frame as sharp: does it keep {percent(SHARP)} of its gradient energy when the past is "
        "fetched once and by the encoder's layers only?",
        measure=sharpness_kept,
        threshold=SHARP,
        side="above",
        kind="core",
        asked=f"more than {percent(SHARP)}",
        because="squared error alone rewards a blurred frame",
        failing="its frames become blurred",
        not_asked=without_benefit,
    ),
)
