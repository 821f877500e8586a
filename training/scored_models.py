"""The networks that `framelens evaluate` scores, opened as its options ask.

open_model("dense-tiles", options)      # with --window and --sink
open_models(options)                    # every --model, and what --cut-from and --fetch-once make of it
"""

import argparse

from framelens import models
from framelens.diffusion.contract import CausalDiffuser
from framelens.models.variants.cut import CutModel, layers_from
from framelens.training.fetching import describe_fetching, fetch_past_once


def open_model(name: str, options: argparse.Namespace) -> CausalDiffuser:
    """One model, with the past in view that --window and --sink ask for."""
    reach = {
        each: getattr(options, each) for each in ("window", "sink") if getattr(options, each) is not None
    }
    return models.load(name, options.device, **reach)


def open_models(options: argparse.Namespace) -> dict[str, CausalDiffuser]:
    """The networks to score by name: every model, and what --cut-from and --fetch-once make of it."""
    networks = {}
    for name in options.model:
        networks[name] = open_model(name, options)
        if options.cut_from is not None:
            cut = CutModel(networks[name], layers_from(networks[name], options.cut_from))
            networks[f"{name}, cut from {options.cut_from}"] = cut
        if options.fetch_once is not None:
            networks[f"{name}, {describe_fetching(options)}"] = fetch_past_once(networks[name], options)
    return networks
