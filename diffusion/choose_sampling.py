"""How a model is sampled: as it is meant to be, or in another number of steps.

sampling = choose_sampling(model, steps=None, otherwise=20)     # its own, else 20 even steps
"""

from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.diffusion.schedule import Sampling


def choose_sampling(
    model: CausalDiffuser, steps: int | None, otherwise: int, first_steps: int | None = None
) -> Sampling:
    """The sampler of a model for a number of steps: an even grid under its shift, fresh noise if distilled.

    Without `steps`, as the model is meant to be sampled, else in `otherwise` steps; with `first_steps` the
    first chunk takes that number. ValueError for more steps than a distilled model has noise levels.
    """
    own = traits(model).sampling
    if steps is None:
        return own or Sampling(otherwise)
    for count in (steps, first_steps or 1):
        require_steps(model, count)
    shift, renoise = (1.0, False) if own is None else (own.shift, own.renoise)
    return Sampling(steps, shift, renoise, first_steps=first_steps)


def require_steps(model: CausalDiffuser, steps: int) -> None:
    """ValueError for more steps than a distilled model has noise levels.

    A student of distribution matching has those of its own sampler, any other those of its teacher's.
    """
    said = traits(model)
    recipe = said.source.metadata.get("training", {}).get("recipe", {})
    levels = "student_steps" if recipe.get("objective") == "dmd" else "levels"
    most = recipe.get(levels) if recipe.get("teacher") else None
    if most is not None and steps > most:
        raise ValueError(
            f"the model is distilled over {most} noise levels, so it has no {steps} steps; its own number is "
            f"{said.sampling and said.sampling.steps}"
        )
