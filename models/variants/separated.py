"""Any network that offers its layers, separated: an encoder once per frame, a decoder at every step.

    model = separate(framelens.load("dense-tiles"), Plan.read(path))            # a plan's layers
    model = separate(wan, encoder=range(25), head=range(5), tail=range(25, 30)) # the paper's split of Wan
    video = rollout(model, noise, sigmas, cond)

The encoder reads the finished frames, then asks for the next one with noise in its place. What its layers
after the head add to the residual stream are the features; the decoder adds them after its head, and its tail
runs on (the residual fusion; Bai et al. 2026, section 6.2). The decoder sees no other frame. Before a
fine-tune it is the network whose past is fetched once, by queries of another noise.
"""

from collections.abc import Sequence

import torch

from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.diffusion.source import Source
from framelens.models import scd
from framelens.models.dense import Dense
from framelens.models.parts.scd_config import ASKING
from framelens.models.separated import halve, require_layers
from framelens.models.separated.stated import How, SplitLayers
from framelens.models.variants.fetch_once import layers_with_past
from framelens.models.variants.recomposed import recompose
from framelens.records.plan import Plan


def separate(
    network: CausalDiffuser,
    plan: Plan | None = None,
    *,
    encoder: Sequence[int] = (),
    head: Sequence[int] = (),
    tail: Sequence[int] = (),
    fusion: str = "residual",
    query: str = "noise",
    share: bool = False,
) -> CausalDiffuser:
    """The network separated as planned, or into these layers of encoder and decoder (head, then tail).

    A framelens dense network whose weights are copied becomes an SCD, of any fusion and query, which is
    trained and saved as such; other networks become a SeparatedNetwork, of the fusions residual, prefix and
    token_concat. With query="learned" the encoder asks with a vector that a fine-tune trains, random before
    it. With `share`, encoder and decoder hold the network's own weights. ValueError for layers that do not
    fit, and for networks whose layers cannot be left out.

    >>> import framelens
    >>> model = framelens.separate(framelens.load("dense-tiles"), encoder=range(6), tail=range(6, 12))
    >>> model.config.encoder_layers, model.config.decoder_layers
    (6, 6)
    """
    if plan is not None and (encoder or head or tail):
        raise ValueError("give a plan, or the layers of encoder, head and tail, not both")
    if plan is not None:
        encoder, head, tail = _layers_of_plan(network, plan)
    require_layers(network)
    layers = SplitLayers(tuple(encoder), tuple(head), tuple(tail))
    layers.check(network.geometry.layers)
    if isinstance(network, Dense) and not share:
        return _as_scd(network, layers, fusion, query)
    with torch.random.fork_rng(devices=[]):  # a learned vector is the same each time
        torch.manual_seed(0)
        model = halve(network, layers, How(share, fusion, query))
    model.source = _made_from(network, "separated")
    return model


def _layers_of_plan(network: CausalDiffuser, plan: Plan) -> tuple[range, tuple[int, ...], tuple[int, ...]]:
    encoder = layers_with_past(network, plan)
    assert plan.split is not None  # layers_with_past refuses such a plan
    return range(encoder), plan.split.head, plan.split.tail


def _made_from(network: CausalDiffuser, kind: str) -> Source:
    """Where a separated network came from: its metadata names the weights from which it was made."""
    theirs = traits(network).source
    return Source(theirs.file, metadata=theirs.metadata | {"network": kind, "separated_from": theirs.sha256})


def _as_scd(network: Dense, layers: SplitLayers, fusion: str, query: str) -> scd.SCD:
    """The network's layers as an SCD, whose metadata names the weights from which it was made."""
    encoder, head, tail = (len(part) for part in (layers.encoder, layers.head, layers.tail))
    shared = {name: value for name, value in network.config.values().items() if name != "layers"}
    sizes = {"encoder_layers": encoder, "decoder_layers": head + tail, "head": head}
    with torch.random.fork_rng(devices=[]):  # the weights of a fusion's own are the same each time
        torch.manual_seed(0)
        model = scd.build(shared | sizes | ASKING | {"fusion": fusion, "query": query})
    recompose(model, network)
    model.to(network.device, network.dtype).train(network.training)
    model.latent, model.source = network.latent, _made_from(network, "scd")
    if traits(network).sampling is not None:
        model.sampling = traits(network).sampling  # pyright: ignore[reportAttributeAccessIssue]
    return model.requires_grad_(next(network.parameters()).requires_grad)
