"""Finding 1 in words: are the features of early and middle layers repeated over denoising steps?"""

from dataclasses import replace

from framelens.analyses.averages import summary
from framelens.analyses.decision.engine import Answer
from framelens.analyses.decision.findings import Finding
from framelens.analyses.decision.repeated_features import MASSIVE, FeatureEvidence
from framelens.analyses.decision.words import percent, spell
from framelens.analyses.depth import depth_of
from framelens.analyses.scales import scale_of
from framelens.reports.drawing import tables

MEANING = {
    "token": "raw and centred cosines are mainly that token's. The token cosine is not.",
    "channel": "the raw cosine is mainly that channel's. The token cosine is without what all tokens share.",
}
"""What it means for the measures where one token, or channel, holds most of the norm."""


def put_in_words(finding: Finding, evidence: FeatureEvidence) -> Finding:
    """The finding with a sentence for each measured answer, and remarks."""
    tests = [replace(test, measured=test.measured or _describe(test, evidence)) for test in finding.tests]
    remarks = [*_massive(evidence), _raw(evidence)] if "step_similarity" in evidence.data else []
    is_compared = any(test.name == "from_context" and test.is_measured for test in tests)
    remarks += [_agreement(evidence)] if is_compared else []
    return replace(finding, tests=tests, remarks=remarks)


def _describe(test: Answer, evidence: FeatureEvidence) -> str:
    value = spell(test.interval)
    if test.name == "repeated":
        return f"Token cosine of two different steps, early and middle layers, trained: {value}."
    if test.name == "learned":
        return f"Random weights: {spell(test.numbers['random'])}; trained minus random: {value}."
    found = evidence.agreement
    cosine = tables.spell(found.cosine.isel(layer=found.clearest))
    return (
        f"Two noise draws at sigma {found.sigma:.2g}, same context: clearest among these layers at "
        f"{found.depth.name(found.clearest)}, {cosine}; minus the larger null: {value}."
    )


def _massive(evidence: FeatureEvidence) -> list[str]:
    """A sentence for a token, and one for a channel, that holds most of the norm."""
    sentences = []
    for kind, share in evidence.massive.items():
        depth, most = depth_of(share), int(share.argmax("layer"))
        layers = int((share > MASSIVE).sum())
        sentences.append(
            f"One {kind} holds {percent(float(share[most]))} of the squared norm at {depth.name(most)}, and "
            f"more than {percent(MASSIVE)} in {layers} of {share.sizes['layer']} layers: {MEANING[kind]}"
        )
    return sentences


def _raw(evidence: FeatureEvidence) -> str:
    """Raw similarity of the middle block, and of the embedding, which no layer has changed."""
    raw = evidence.raw
    depth, values = depth_of(raw), summary(raw, scale_of("cosine"))
    middle = depth.blocks[len(depth.blocks) // 2]
    text = f"Raw cosine at {depth.name(middle)}: {tables.spell(values.isel(layer=middle))}"
    if min(depth.layers) < 0:
        embedding = tables.spell(values.isel(layer=depth.layers.index(-1)))
        text += f"; at the embedding, where it only shows how similar the noisy inputs are: {embedding}"
    return text + "."


def _agreement(evidence: FeatureEvidence) -> str:
    """The layer from which on noise draws agree more than their nulls."""
    found = evidence.agreement
    if not found.is_measured:
        few = f"too few {evidence.sample.unit}s"
        return f"There are {few} to find the layer from which on noise draws agree."
    if not found.risen:
        return "In no layer do noise draws agree more than their nulls."
    first = found.risen[0]
    everywhere = found.risen == [position for position in found.depth.blocks if position >= first]
    after = "and in every layer after it" if everywhere else "but not in every layer after it"
    return f"Noise draws first agree more than their nulls at {found.depth.name(first)}, {after}."
