"""One chunk that is generated many times from its true past: noise draws, contexts, the plain model's frames.

A chunk is the frames that a model denoises together, one for most models.

    probe = probed_clip.chunk_probe()
    frames = probe.generate(noise, velocity)            # velocity(x, step) may be that of an edited model

Rows of a batch are (condition, noise draw), the draw fastest. Contexts are made once per batch size, before
any instrument is attached: interventions change the current chunk, never the memory of finished frames.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.diffusion.layers import LayerStack
from framelens.diffusion.own_tokens import require_rows
from framelens.diffusion.sampler import ForwardPass, fresh_noise, sample
from framelens.diffusion.schedule import add_noise
from framelens.hooks.attention_edit import AttentionCall, AttentionEdit, mask_other_frames
from framelens.probes.chunk.features import DRAWS, Features
from framelens.probes.chunk.layers import Layers
from framelens.probes.chunk.pasts import Clip, Pasts
from framelens.probes.chunk.scale import Scale

ROWS, TOKENS = 24, 600
"""Most rows of a batch of conditions, and most tokens (but never fewer than DRAWS rows). On one CPU core
16 rows of 25 tokens take a third of the time of 16 passes."""

OnPass = Callable[[ForwardPass], None]


def conditions_per_batch(tokens: int) -> int:
    """Conditions in one batch, with DRAWS rows each, for chunks of that many tokens."""
    return max(1, min(ROWS, TOKENS // tokens) // DRAWS)


class ChunkProbe:
    """The chunk after the given past of a clip, for one model; a second past serves as control."""

    def __init__(
        self,
        model: CausalDiffuser,
        pasts: dict[str, Clip],
        noise: Float[Tensor, "draw f c h w"],
        frame: int,
        grid: Float[Tensor, " steps_and_1"],
        levels: Float[Tensor, " sigma"],
        renoise: tuple[int, ...] | None = None,
    ):
        """`pasts` holds the clips "own", "other_clip", and "other_frames", which is the other clip's frames
        under own's conditions. The truth is own's chunk from `frame` on.

        `renoise` holds a seed per noise draw where each step adds new noise to the predicted frames.
        """
        self.model, self.noise, self.frame = model, noise, frame
        self.grid, self.levels = grid, levels
        self.layers = Layers(model)
        self.chunk, self.renoise = model.geometry.frames_per_chunk, renoise
        self.truth = pasts["own"].video[:, frame : frame + self.chunk]
        self.scale = Scale.of(model, pasts["own"].video)
        self._features: dict[tuple[int, str], Features] = {}
        self._fresh: dict[int, Tensor] = {}
        self.evaluations = 0
        """Blocks run so far, times rows."""
        sizes = {DRAWS, 2 * DRAWS, self.batch * DRAWS}
        self.pasts = Pasts(model, pasts, frame, sizes, is_shared=self.batch == 1)

    @property
    def steps(self) -> int:
        """Denoising steps."""
        return len(self.grid) - 1

    @property
    def batch(self) -> int:
        """Conditions per batch, with DRAWS rows each."""
        return conditions_per_batch(self.model.geometry.tokens_per_chunk)

    @cached_property
    def ranges(self) -> LayerStack | None:
        """The network's layers by ranges, where batches of any number of rows can run through them."""
        declared, sizes = traits(self.model), range(DRAWS, self.batch * DRAWS, DRAWS)
        can_mix = declared.stack is not None and not declared.denoising_stack and self.batch > 1
        return declared.stack if can_mix and all(map(self.pasts.narrow, sizes)) else None

    @cached_property
    def attention(self) -> dict[str, int]:
        """The attention modules that run in denoising passes, each with its layer."""
        blocks, names = enumerate(self.layers.names), list(self.model.attn_dict)
        return {name: layer for layer, block in blocks for name in names if name.startswith(f"{block}.")}

    def before(self, name: str) -> list[int]:
        """The layers of the attention modules that run before this one."""
        return list(self.attention.values())[: list(self.attention).index(name)]

    @torch.no_grad()
    def velocity(
        self,
        x: Float[Tensor, "b f c h w"],
        sigma: float,
        step: int = 0,
        announced: Iterable[OnPass] = (),
        past: str = "own",
        run: int | None = None,
    ) -> Float[Tensor, "b f c h w"]:
        """The model's velocity; the pass is announced to instruments first.

        `run` is the number of layers that are counted, if the model lets the others be skipped.
        """
        at = ForwardPass(self.frame, step, sigma, "denoise")
        for on_pass in announced:
            on_pass(at)
        depth = len(self.layers)
        self.evaluations += len(x) * (depth if run is None or self.layers.modules is None else run)
        level = torch.full((len(x),), sigma, device=x.device)
        return self.model.denoise(x, level, self.pasts.at_level(sigma, len(x), past))

    def generate(
        self, x: Float[Tensor, "b f c h w"], velocity: Callable[[Tensor, int], Tensor], first: int = 0
    ) -> Float[Tensor, "b f c h w"]:
        """The frames after the sampler's steps from `first` to the last, `velocity(x, step)` at each."""
        return deque(self._sample_steps(x, velocity, first), maxlen=1)[0]

    def _sample_steps(
        self, x: Tensor, velocity: Callable[[Tensor, int], Tensor], first: int = 0
    ) -> Iterator[Tensor]:
        return sample(x, self.grid.tolist(), velocity, self._noise_to_add, first)

    def _noise_to_add(self, x: Tensor, step: int) -> Tensor | None:
        """The noise that is added after a step, the same under every condition."""
        if self.renoise is None:
            return None
        if step not in self._fresh:
            draws = [fresh_noise(self.noise[:1], seed, self.frame, step) for seed in self.renoise]
            self._fresh[step] = torch.cat(draws)
        return self._fresh[step].repeat(len(x) // DRAWS, 1, 1, 1, 1)

    def sigma(self, step: int) -> float:
        """The noise level at the beginning of a step; 0 after the last one."""
        return self.grid[step].item()

    def record(
        self, x: Float[Tensor, "b f c h w"], sigma: float, step: int = 0, past: str = "own"
    ) -> tuple[Float[Tensor, "b f c h w"], Features]:
        """The plain velocity, and the features of the pass."""
        cross: dict[str, Tensor] = {}
        ages: set[int] = set()

        def keep(_at: Any, name: str, call: AttentionCall) -> Tensor:
            assert call.key_age is not None
            ages.update(call.key_age.unique().tolist())
            cross[name] = call.out - mask_other_frames(call, registers=not self.before(name))
            return call.out

        with AttentionEdit(self.model.attn_dict, dict.fromkeys(self.attention, keep)) as edit:
            velocity, residual = self.record_residual(x, sigma, step, past, (edit.on_pass,))
        return velocity, Features(residual, cross, max(ages, default=0) > 0)

    def record_residual(
        self,
        x: Float[Tensor, "b f c h w"],
        sigma: float,
        step: int = 0,
        past: str = "own",
        announced: Iterable[OnPass] = (),
    ) -> tuple[Float[Tensor, "b f c h w"], list[Float[Tensor, "b n d"]]]:
        """The plain velocity, and the residual stream before layer 0 and after each layer."""
        with self.layers.record() as (on_pass, residual):
            velocity = self.velocity(x, sigma, step, (on_pass, *announced), past)
        require_rows(self.layers.points[0], len(residual[0]), len(x))
        return velocity, residual

    @cached_property
    def path(self) -> list[Float[Tensor, "draw f c h w"]]:
        """The plain model's noisy frames at the beginning of each step, then the generated frames."""
        return list(self._sample_steps(self.noise, lambda x, step: self.velocity(x, self.sigma(step), step)))

    @property
    def sample(self) -> Float[Tensor, "draw f c h w"]:
        """The plain model's generated frames, for each noise draw."""
        return self.path[-1]

    def features(self, step: int = 0, past: str = "own") -> Features:
        """The plain model's features at that step of its path; at step 0 also with the other clip's past."""
        if (step, past) not in self._features:
            with self.remember(past):
                self._features[step, past] = self.record(self.path[step], self.sigma(step), step, past)[1]
        return self._features[step, past]

    def remember(self, past: str) -> AbstractContextManager[None]:
        """That past in memory, for passes of one condition; freed afterwards."""
        return self.pasts.remember(past, DRAWS)

    def at_level(self, sigma: float) -> Float[Tensor, "draw f c h w"]:
        """The true frames at that noise level, with each noise draw."""
        truth = self.truth.expand_as(self.noise)
        return add_noise(truth, self.noise, truth.new_full((DRAWS, self.chunk), sigma))

    @cached_property
    def plain_velocities(self) -> Float[Tensor, "sigma draw f c h w"]:
        """The model's velocities at the true frames, noised to each level."""
        levels = enumerate(self.levels.tolist())
        return torch.stack([self.velocity(self.at_level(sigma), sigma, step) for step, sigma in levels])

    @property
    def target(self) -> Float[Tensor, "draw f c h w"]:
        """The true velocity of each noise draw."""
        return self.noise - self.truth
