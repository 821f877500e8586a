"""How a sampler names each forward pass of a network before it happens."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

Role = Literal["denoise", "encode", "ask"]
Branch = Literal["cond", "uncond"]


@dataclass(frozen=True)
class ForwardPass:
    """One forward pass of a sampler, named before it happens; `frame` is the first of the chunk's frames.

    It is denoised, or, finished, encoded (sigma 0). A model that `asks` runs an encoder of its own over the
    coming frame as noise (sigma 1) before it is denoised.
    """

    frame: int
    step: int
    sigma: float
    role: Role
    branch: Branch = "cond"


OnPass = Callable[[ForwardPass], None]
Announce = Callable[..., None]
"""Called before each pass of the network with its branch, and with True before one that asks."""


def ignore_pass(*_: Any, **__: Any) -> None:
    """Ignores the pass."""


def announce_as(
    on_pass: OnPass, frame: int, step: int, sigma: float, role: Role, coming: int = 0
) -> Announce:
    """A function that announces passes of that moment, or passes that ask for the coming frame."""
    if on_pass is ignore_pass:
        return ignore_pass

    def announce(branch: Branch = "cond", asks: bool = False) -> None:
        moment = (coming, 0, 1.0, "ask") if asks else (frame, step, sigma, role)
        on_pass(ForwardPass(*moment, branch))

    return announce


def announce_branch(announce: Announce, branch: Branch) -> Announce:
    """A function that announces passes of that branch."""
    return announce if announce is ignore_pass else partial(announce, branch)
