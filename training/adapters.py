"""Low-rank adapters (LoRA, Hu et al. 2021) of a network's blocks, trained in place of its weights.

    add_adapters(model, rank=16, alpha=16.0, seed=0)    # every other weight is frozen
    state = trained_state(model)                        # the adapters alone, by name
    weights = merge(model.state_dict(), scale=1.0)      # W + scale B A, by the network's own names

A of each adapter is random and B is zero, so that at first the network computes what it did.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from framelens.records.extras import extra

ADAPTER = re.compile(r"\.lora_[AB]\.default\.weight$")
"""The end of the name of an adapter's matrix, as peft calls it."""
BASE = ".base_layer."
"""What stands before the name of a weight that has an adapter, as peft calls it."""


def is_in_block(name: str) -> bool:
    """Whether a weight of that name belongs to attention or MLP of a block: it does not modulate a norm."""
    return "blocks." in name and ".norm" not in name


def add_adapters(model: nn.Module, rank: int, alpha: float, seed: int, part: str = "") -> None:
    """Gives the linear layers of attention and MLP in all blocks adapters, and freezes all other weights.

    `part` names the half of a separated network that gets them. ValueError where there are no such layers,
    and where one weight stands in two of them: it would get two adapters.
    """
    with extra("training"):
        from peft import LoraConfig, inject_adapter_in_model
    inner = {name: each for name, each in model.named_modules() if isinstance(each, nn.Linear)}
    inner = {name: each for name, each in inner.items() if is_in_block(name) and name.startswith(part)}
    if not inner:
        raise ValueError(f"lora_rank={rank}: a {type(model).__name__} has no linear layers in blocks")
    if len({id(each.weight) for each in inner.values()}) < len(inner):
        raise ValueError(
            f"lora_rank={rank}: encoder and decoder hold the same weights, which would get two adapters; "
            "separate the network with copied weights, share=False"
        )
    model.requires_grad_(False)
    names = "|".join(re.escape(f"0.{name}") for name in inner)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names)  # pyright: ignore[reportArgumentType]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, nn.ModuleList([model]))  # peft would read the network's own `config`
    adapted: Any = (each for each in model.modules() if hasattr(each, "cast_input_dtype_enabled"))
    for each in adapted:
        each.cast_input_dtype_enabled = False  # autocast casts, without a copy in float32


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of the network's adapters; all of its state where it has none."""
    state = model.state_dict()
    return {name: weight for name, weight in state.items() if ADAPTER.search(name)} or state


def merge(state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The weights of the network itself, adapters times `scale` added, as new tensors where there is one."""
    merged = {}
    for name, weight in state.items():
        if ADAPTER.search(name):
            continue
        stem, base, leaf = name.rpartition(BASE)
        if base and leaf == "weight":
            b, a = (state[f"{stem}.lora_{which}.default.weight"] for which in "BA")
            weight = weight + scale * (b @ a)
        merged[f"{stem}.{leaf}" if base else name] = weight
    return merged
