"""The optimisers of a training, with the peak learning rate of each group of weights."""

import torch
from torch import nn

from framelens.training.adapters import is_in_block
from framelens.training.recipes import Recipe


def make_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for matrices inside the blocks (modulation aside), AdamW for everything else and for adapters."""
    weights: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        inner = weight.ndim == 2 and is_in_block(name) and not recipe.lora_rank
        weights.setdefault((recipe.muon and inner, name.startswith("decoder.")), []).append(weight)

    def groups(is_matrix: bool, rate: float) -> list[dict]:
        ratio = {False: 1.0, True: recipe.decoder_rate}
        return [
            {"params": part, "peak": rate * ratio[is_decoder]}
            for (matrix, is_decoder), part in weights.items()
            if matrix == is_matrix
        ]

    rate, decay = recipe.learning_rate, recipe.weight_decay
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            groups(False, rate), lr=rate, betas=(recipe.beta1, recipe.beta2), weight_decay=decay
        )
    ]
    if matrices := groups(True, recipe.muon_learning_rate):
        made.append(
            torch.optim.Muon(
                matrices, lr=recipe.muon_learning_rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
            )
        )
    return made
