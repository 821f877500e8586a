"""A check of the layers that a model offers to be run by ranges, as `stack`."""

import torch

from framelens.probes.check.checked_model import Check, CheckedModel, difference


@torch.no_grad()
def layers(checked: CheckedModel) -> Check:
    """The layers, one range after the other, give the velocity of `denoise`."""
    claim = "the layers of `stack`, run one range after the other, give the velocity of denoise"
    stack, depth, last = checked.traits.stack, checked.model.geometry.layers, checked.chunks - 1
    if stack is None:
        return Check("layers", claim, "the model offers no stack", None)
    context = checked.remember(checked.clip(0), last, checked.cond())
    whole = checked.velocity(checked.clip(1), last, context)
    x, sigma = checked.clip(1)[:, checked.frames(last)], torch.full((1,), checked.sigma(last))
    entered = stack.enter(x, sigma.to(checked.device), context)
    for layer in range(depth):
        entered = entered._replace(tokens=stack.through(*entered, range(layer, layer + 1)))
    error = difference(stack.velocity(entered.tokens, entered.modulations), whole)
    return Check(
        "layers",
        claim,
        f"differs by {error:.1e}",
        error == 0,
        "denoise is velocity(through(*enter(x, sigma, context), range(layers)), modulations); a model that "
        "changes denoise changes these, too, or says stack = None",
    )
