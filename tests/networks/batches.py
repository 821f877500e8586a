"""Small networks of every kind, and clips and conditions as each network takes them. For tests only."""

from functools import partial

import tiny
import torch
import twins

from framelens import models
from framelens.diffusion.contract import traits


def ours(layers):
    """Makers of dense networks by what they are conditioned on."""
    return {
        "dense": partial(tiny.model, layers=layers),
        "dense, actions, a window": partial(tiny.model, layers=layers, conditions=3, window=1, sink=1),
        "dense, text": partial(tiny.model, layers=layers, text_tokens=3, text_width=5),
    }


def load_twin(name, folder):
    """The small network of a family, loaded from a file in its real format."""
    path, said = twins.twin(name, folder)
    return models.load(path, **said)


def condition(model, batch, chunks):
    """Conditions of a batch of clips of that many chunks, of the kind that the model takes."""
    said, frames = traits(model), chunks * model.geometry.frames_per_chunk
    if isinstance(said.null_condition, torch.Tensor):
        one = said.null_condition.shape
        return tiny.draw(batch, *((frames, *one) if said.takes == "actions" else one), seed=9)
    if said.null_condition is None:
        return None
    shape = (batch, frames) if said.takes == "actions" else (batch,)
    return torch.randint(int(said.null_condition), shape, generator=torch.Generator().manual_seed(9))


def clip(model, batch, chunks, seed=0):
    """A batch of clips of the model's shape."""
    g = model.geometry
    return tiny.draw(batch, chunks * g.frames_per_chunk, g.channels, g.height, g.width, seed=seed)


def after(model, batch, chunks, seen):
    """The context after the first `seen` chunks of those clips."""
    context, size = model.start(batch, condition(model, batch, chunks)), model.geometry.frames_per_chunk
    for chunk in range(seen):
        context = model.encode(clip(model, batch, chunks)[:, chunk * size : (chunk + 1) * size], context)
    return context
