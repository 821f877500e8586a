"""Procedural worlds; one file per world.

    world = worlds.load("tiles")
    batch = world.clips(seeds=range(8), frames=16)      # Clips

A world is a file with `clips(seeds, frames)` and the constants SHAPE (channels, height, width) and CONDITIONS
(how many actions there are). A world with prompts has PROMPT, their tokens and width, and gives `text`. If
the content of a frame can be measured, the file also has `state_error(video, state)` [b f], and STATE_ERROR
says what that is.
"""

from framelens.records.registry import Registry

_WORLDS = Registry(__name__, "world")
names, load = _WORLDS.names, _WORLDS.load
