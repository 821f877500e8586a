"""One frame to be drawn again and again: its true past in memory, its noise draws, the plain model's answer.

    stage = subject.stage
    frames = stage.drawn(noise, velocity)            # velocity(x, step) may be that of an edited model

Rows of a batch are (condition, noise draw), the draw fastest. Contexts are made once per batch size, under no
instrument: interventions reach the frame being denoised, never the memory of the finished ones.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffusion.sampler import ForwardPass
from diffusion.schedule import noised, sigma_grid
from hooks.attention_edit import AttentionCall, AttentionEdit, frame_diagonal
from probes._layers import Layers

DRAWS = 2
"""Noise draws per clip: two show how far samples of one past lie apart."""

ROWS, TOKENS = 16, 512
"""Most rows, and most tokens unless that is fewer than DRAWS rows, of a batch of conditions. On one CPU core
16 rows of 25 tokens take a third of the time of 16 passes."""

OnPass = Callable[[ForwardPass], None]


@dataclass(frozen=True)
class Clip:
    """One clip as the model takes it: video [1 f c h w] and conditions [1 f] or None."""

    video: Float[Tensor, "1 f c h w"]
    cond: Int[Tensor, "1 ..."] | None


@dataclass(frozen=True)
class Features:
    """What one pass computed, a row per noise draw: the residual stream before layer 0 and after each layer,
    and the cross-frame part of attention by module."""

    residual: list[Float[Tensor, "b n d"]]
    cross: dict[str, Float[Tensor, "b head q dh"]]

    def of_other_draw(self) -> "Features":
        """The same, each noise draw's given to the other one."""
        cross = {name: part.flip(0) for name, part in self.cross.items()}
        return Features([part.flip(0) for part in self.residual], cross)


class Stage:
    """The frame behind the given past of a clip, for one model; a second past serves as control."""

    def __init__(
        self,
        model: Any,
        pasts: dict[str, Clip],
        noise: Float[Tensor, "draw 1 c h w"],
        frame: int,
        steps: int,
        shift: float,
        levels: Float[Tensor, " sigma"],
    ):
        """`pasts` holds the clips "own" and "other_clip"; the truth is own's `frame`."""
        self.model, self.pasts, self.noise, self.frame = model, pasts, noise, frame
        self.grid, self.levels = sigma_grid(steps, shift), levels
        self.layers = Layers(model)
        self.truth = pasts["own"].video[:, frame : frame + 1]
        self._features: dict[tuple[int, str], Features] = {}
        self.evaluations = 0
        """Blocks run so far, times rows."""
        # Made here, before any instrument is attached.
        sizes = {DRAWS, 2 * DRAWS, self.batch * DRAWS}
        self._contexts = {(rows, "own"): self._remembered(rows, "own") for rows in sizes}
        self._contexts[DRAWS, "other_clip"] = self._remembered(DRAWS, "other_clip")

    @property
    def steps(self) -> int:
        """Denoising steps."""
        return len(self.grid) - 1

    @property
    def batch(self) -> int:
        """Conditions per batch, with DRAWS rows each."""
        return max(1, min(ROWS, TOKENS // self.model.geometry.tokens_per_frame) // DRAWS)

    @cached_property
    def attention(self) -> dict[str, int]:
        """The attention modules that run in denoising passes, each with its layer."""
        blocks = enumerate(self.layers.names)
        return {
            name: layer for layer, block in blocks for name in self.model.attn_dict if _within(block, name)
        }

    @torch.no_grad()
    def _remembered(self, rows: int, past: str) -> Any:
        """The memory of the true frames before this one, for so many rows."""
        video, cond = self.pasts[past].video, self.pasts[past].cond
        context = self.model.start(rows, None if cond is None else cond.expand(rows, *cond.shape[1:]))
        for frame in range(self.frame):
            x = video[:, frame : frame + 1].expand(rows, -1, -1, -1, -1)
            context = self.model.encode(x, context)
        return context

    @torch.no_grad()
    def velocity(
        self,
        x: Float[Tensor, "b 1 c h w"],
        sigma: float,
        step: int = 0,
        announced: Iterable[OnPass] = (),
        past: str = "own",
        run: int | None = None,
    ) -> Float[Tensor, "b 1 c h w"]:
        """The model's velocity, after the pass was announced to instruments.

        `run` layers are counted as run, where the others could be passed over.
        """
        at = ForwardPass(self.frame, step, sigma, "denoise")
        for on_pass in announced:
            on_pass(at)
        depth = len(self.layers)
        self.evaluations += len(x) * (depth if run is None or self.layers.modules is None else run)
        level = torch.full((len(x),), sigma, device=x.device)
        return self.model.denoise(x, level, self._contexts[len(x), past])

    def drawn(
        self, x: Float[Tensor, "b 1 c h w"], velocity: Callable[[Tensor, int], Tensor], first: int = 0
    ) -> Float[Tensor, "b c h w"]:
        """The frame after Euler steps from `first` to the last, `velocity(x, step)` at each."""
        for step in range(first, self.steps):
            x = x + (self.sigma(step + 1) - self.sigma(step)) * velocity(x, step)
        return x[:, 0]

    def sigma(self, step: int) -> float:
        """The noise level at the beginning of a step; 0 behind the last one."""
        return self.grid[step].item()

    def recorded(
        self, x: Float[Tensor, "b 1 c h w"], sigma: float, step: int = 0, past: str = "own"
    ) -> tuple[Float[Tensor, "b 1 c h w"], Features]:
        """The plain velocity, and what the pass computed on the way."""
        cross: dict[str, Tensor] = {}

        def keep(_at: Any, name: str, call: AttentionCall) -> Tensor:
            cross[name] = call.out - frame_diagonal(call)
            return call.out

        edits = dict.fromkeys(self.attention, keep)
        with (
            self.layers.recorded() as (on_pass, residual),
            AttentionEdit(self.model.attn_dict, edits) as edit,
        ):
            velocity = self.velocity(x, sigma, step, (on_pass, edit.on_pass), past)
        return velocity, Features(residual, cross)

    @cached_property
    def path(self) -> list[Float[Tensor, "draw 1 c h w"]]:
        """The plain model's noisy frame at the beginning of each step, then the frames it drew."""
        path = [self.noise]
        for step in range(self.steps):
            x, sigma = path[-1], self.sigma(step)
            path.append(x + (self.sigma(step + 1) - sigma) * self.velocity(x, sigma, step))
        return path

    @property
    def sample(self) -> Float[Tensor, "draw c h w"]:
        """What the plain model draws of each noise draw."""
        return self.path[-1][:, 0]

    def features(self, step: int = 0, past: str = "own") -> Features:
        """What the plain model computes at that step of its path; at step 0 also in the other clip's past."""
        if (step, past) not in self._features:
            self._features[step, past] = self.recorded(self.path[step], self.sigma(step), step, past)[1]
        return self._features[step, past]

    def at_level(self, sigma: float) -> Float[Tensor, "draw 1 c h w"]:
        """The true frame at that noise level, with each noise draw."""
        truth = self.truth.expand_as(self.noise)
        return noised(truth, self.noise, truth.new_full((DRAWS, 1), sigma))

    @cached_property
    def plain_velocities(self) -> Float[Tensor, "sigma draw 1 c h w"]:
        """The model's velocities at the true frame, noised to each level."""
        levels = enumerate(self.levels.tolist())
        return torch.stack([self.velocity(self.at_level(sigma), sigma, step) for step, sigma in levels])

    @property
    def target(self) -> Float[Tensor, "draw 1 c h w"]:
        """The true velocity of each noise draw."""
        return self.noise - self.truth


def _within(block: str, name: str) -> bool:
    return name.startswith(f"{block}.")
