"""One chunk that is generated many times from its true past: noise draws, contexts, the plain model's frames.

A chunk is the frames that a model denoises together, one for most models.

    probe = probed_clip.chunk_probe()
    frames = probe.generate(noise, velocity)            # velocity(x, step) may be that of an edited model

Rows of a batch are (condition, noise draw), the draw fastest. Contexts are made once per batch size, before
any instrument is attached: interventions change the current chunk, never the memory of finished frames.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from framelens.diffusion.contract import CausalDiffuser
from framelens.diffusion.own_tokens import require_rows
from framelens.diffusion.sampler import ForwardPass, fresh_noise, sample
from framelens.diffusion.schedule import add_noise
from framelens.hooks.attention_edit import AttentionCall, AttentionEdit, mask_other_frames
from framelens.models.parts.contexts import prepare, widen
from framelens.probes.chunk.features import DRAWS, Features
from framelens.probes.chunk.layers import Layers
from framelens.probes.chunk.scale import Scale
from framelens.videos import Window

ROWS, TOKENS = 16, 512
"""Most rows of a batch of conditions, and most tokens (but never fewer than DRAWS rows). On one CPU core
16 rows of 25 tokens take a third of the time of 16 passes."""

OnPass = Callable[[ForwardPass], None]


def conditions_per_batch(tokens: int) -> int:
    """Conditions in one batch, with DRAWS rows each, for chunks of that many tokens."""
    return max(1, min(ROWS, TOKENS // tokens) // DRAWS)


@dataclass(frozen=True)
class Clip:
    """One clip as the model reads it: video [1 f c h w] and conditions, such as actions [1 f], or None.

    `negative` is the negative prompt of guidance, where it is not the model's null condition; `window` the
    place of a clip that is from a film.
    """

    video: Float[Tensor, "1 f c h w"]
    cond: Shaped[Tensor, "1 ..."] | None
    negative: Float[Tensor, "tokens width"] | None = None
    window: Window | None = None


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
        self.model, self.pasts, self.noise, self.frame = model, pasts, noise, frame
        self.grid, self.levels = grid, levels
        self.layers = Layers(model)
        self.chunk, self.renoise = model.geometry.frames_per_chunk, renoise
        self.truth = pasts["own"].video[:, frame : frame + self.chunk]
        self.scale = Scale.of(model, pasts["own"].video)
        self._features: dict[tuple[int, str], Features] = {}
        self._fresh: dict[int, Tensor] = {}
        self._at_level: dict[tuple[int, str, float], Any] = {}
        self.evaluations = 0
        """Blocks run so far, times rows."""
        # Encoded here, before any instrument is attached.
        self._contexts = self._remember("own", {DRAWS, 2 * DRAWS, self.batch * DRAWS})

    @property
    def steps(self) -> int:
        """Denoising steps."""
        return len(self.grid) - 1

    @property
    def batch(self) -> int:
        """Conditions per batch, with DRAWS rows each."""
        return conditions_per_batch(self.model.geometry.tokens_per_chunk)

    @cached_property
    def attention(self) -> dict[str, int]:
        """The attention modules that run in denoising passes, each with its layer."""
        blocks, names = enumerate(self.layers.names), list(self.model.attn_dict)
        return {name: layer for layer, block in blocks for name in names if name.startswith(f"{block}.")}

    def before(self, name: str) -> list[int]:
        """The layers of the attention modules that run before this one."""
        return list(self.attention.values())[: list(self.attention).index(name)]

    def _remember(self, past: str, sizes: Collection[int]) -> dict[tuple[int, str], Any]:
        """The memory of the true frames before this chunk, for each of these numbers of rows.

        If a batch is one condition, all rows share one memory: of a large model, only one fits.
        """
        one = self._encode_past(1, past) if self.batch == 1 else None
        return {(rows, past): widen(one, rows) or self._encode_past(rows, past) for rows in sizes}

    @torch.no_grad()
    def _encode_past(self, rows: int, past: str) -> Any:
        video, cond = self.pasts[past].video, self.pasts[past].cond
        context = self.model.start(rows, None if cond is None else cond.expand(rows, *cond.shape[1:]))
        for frame in range(0, self.frame, self.chunk):
            x = video[:, frame : frame + self.chunk].expand(rows, -1, -1, -1, -1)
            context = self.model.encode(x, context)
        return context

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
        return self.model.denoise(x, level, self._context_at(sigma, len(x), past))

    def _context_at(self, sigma: float, rows: int, past: str) -> Any:
        """The memory for passes at that noise level; what depends on the level alone is computed once."""
        key = rows, past, sigma
        if key not in self._at_level:
            level = torch.full((1,), sigma, device=self.noise.device)
            self._at_level[key] = prepare(self.model, self._contexts[rows, past], level)
        return self._at_level[key]

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

        edits = dict.fromkeys(self.attention, keep)
        with (
            self.layers.record() as (on_pass, residual),
            AttentionEdit(self.model.attn_dict, edits) as edit,
        ):
            velocity = self.velocity(x, sigma, step, (on_pass, edit.on_pass), past)
        require_rows(self.layers.points[0], len(residual[0]), len(x))
        return velocity, Features(residual, cross, max(ages, default=0) > 0)

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

    @contextmanager
    def remember(self, past: str) -> Iterator[None]:
        """That past in memory, for passes of one condition; freed afterwards."""
        others = {} if past == "own" else self._remember(past, {DRAWS})
        self._contexts |= others
        try:
            yield
        finally:
            for key in others:
                del self._contexts[key]
            self._at_level = {key: kept for key, kept in self._at_level.items() if key[:2] not in others}

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
