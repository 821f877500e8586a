"""Where each token of a frame looks: its attention to every token of every earlier frame, row by row.

Of the trained network, teacher-forced, at the last probed chunk and at three steps: the passes that
`frame_attention` averages over. Only the first two clips are kept, for pictures. A row has one value for each
key, so rows grow with the square of the tokens: above MOST_BYTES for each clip nothing is kept unless the
settings name this experiment, and above MOST_ASKED_BYTES it is refused.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from framelens.analyses.cost import FLOAT32
from framelens.analyses.sums.layout import SPARSITY, Labels, tabulate, variable
from framelens.diffusion.own_tokens import require_rows
from framelens.diffusion.sampler import ForwardPass
from framelens.hooks.attention import AttentionTap, Pattern
from framelens.probes.experiments.rollouts import draw_rollout
from framelens.probes.run.costs import Evaluations
from framelens.probes.run.finite import require_finite
from framelens.probes.run.probed_clip import ProbedClip
from framelens.probes.run.settings import Settings
from framelens.probes.run.shape import RunShape, shape_of_run

CLIPS = 2
"""The first clips of a run, whose rows are kept."""
MOST_BYTES = 8_000_000
"""Of the rows of one clip, unless the settings name this experiment."""
MOST_ASKED_BYTES = 512_000_000
"""Of the rows of one clip in any case."""


def measure(probed_clip: ProbedClip) -> dict[str, xr.Dataset]:
    """`attention_rows`, (clip, step, layer, head, query, frame, token), of the first clips.

    Nothing for later clips, for more than MOST_BYTES, and where no layer that denoises attends to tokens of
    earlier frames. ValueError if the settings name this experiment and there is nothing for any clip.
    """
    model, settings = probed_clip.networks["trained"], probed_clip.settings
    refused = _refuse(shape_of_run(model, settings, probed_clip.frames))
    rows = None
    if refused is None and probed_clip.index < CLIPS:
        rows = Rows(probed_clip.probed[-1], model.geometry.tokens_per_frame)
        steps = kept_steps(settings)

        def sink(at: ForwardPass, name: str, pattern: Pattern) -> None:
            if at.role == "denoise" and at.branch == "cond" and at.step in steps:
                rows.add(at, name, pattern)

        draw = partial(draw_rollout, probed_clip, model, "teacher_forced", denoised={rows.frame})
        with AttentionTap(model.attn_dict, "*", sink) as tap:
            video = draw(tap.on_pass)
        require_finite(model, video, draw)
        if not rows.points:
            refused = "no layer that denoises has one key for each token of an earlier frame"
    if refused is not None and "attention_rows" in settings.experiments:
        raise ValueError(f"attention_rows keeps nothing: {refused}")
    return {} if refused is not None or rows is None else {"attention_rows": rows.result()}


def evaluations(run: RunShape) -> Evaluations:
    """Of a clip that is kept: every step of the last chunk after its true past, in each branch."""
    if _refuse(run) is not None:
        return Evaluations(0)
    passes = run.branches * run.settings.steps
    return Evaluations(passes * run.layers, run.branches * run.encoding(run.chunks - 1), clips=CLIPS)


def kept_bytes(run: RunShape) -> int:
    """The past of each branch, and the rows."""
    if _refuse(run) is not None:
        return 0
    return run.cache_bytes(run.chunks, run.branches) + row_bytes(run)


def row_bytes(run: RunShape) -> int:
    """The most bytes that the rows of one clip take."""
    keys = run.past_frames(run.probed[-1]) * run.tokens // run.chunk
    return FLOAT32 * len(kept_steps(run.settings)) * run.layers * run.heads * run.tokens * keys


def kept_steps(settings: Settings) -> list[int]:
    """The first, the middle and the last denoising step."""
    return sorted({0, settings.steps // 2, settings.steps - 1})


def _refuse(run: RunShape) -> str | None:
    """Why no rows are kept of any clip, and what to do; None where they are."""
    if not run.attends_to_past:
        return "layers that denoise see their own frame alone; leave it out of --experiments"
    is_asked = "attention_rows" in run.settings.experiments
    size, most = row_bytes(run), MOST_ASKED_BYTES if is_asked else MOST_BYTES
    if size <= most:
        return None
    return (
        f"rows of {run.layers} layers, {run.heads} heads and {run.tokens} tokens take {size:,} bytes for "
        f"each clip, and at most {most:,} are kept; give fewer --frames"
    )


class Rows:
    """The rows of one chunk, as its passes give them.

    rows = Rows(frame, tokens_per_frame)
    rows.add(at, "blocks.3.attn", pattern)
    rows.result().mass                          # (clip, step, layer, head, query, frame, token)
    """

    def __init__(self, frame: int, tokens: int):
        self.frame, self.tokens = frame, tokens
        self._labels = Labels()
        self._cells: dict[str, dict[tuple[str, int], Tensor]] = {"mass": {}, "own_mass": {}, "other_mass": {}}
        self._keys: dict[str, int] = {}

    @property
    def points(self) -> list[str]:
        """The layers that have rows."""
        return self._labels.points

    def add(self, at: Any, name: str, pattern: Pattern) -> None:
        """Keeps the rows of all queries; nothing for a layer without keys of tokens of earlier frames."""
        require_rows(name, len(pattern.q) // pattern.fold, clips=1)
        ages = pattern.key_age
        if ages is None:
            raise ValueError(f"the age of the keys of {name} is not known; give its AttentionPoint a key_age")
        seen = self._places(ages, pattern.fold)
        if not seen:
            return
        self._labels.note(at, name)
        p, key = pattern.rows(0, pattern.queries).float().cpu(), (name, at.step)
        placed = p.new_full((*p.shape[:3], self.frame, self.tokens), torch.nan)
        for frame, columns in seen.items():
            placed[..., frame, :] = _spread(p[..., columns], pattern.fold, self.tokens)
        own = p[..., (ages == 0).nonzero().flatten().cpu()].sum(-1)
        self._cells["mass"][key], self._cells["own_mass"][key] = placed, own
        self._cells["other_mass"][key] = (1 - own - placed.nansum((-2, -1))).clamp(min=0)
        self._keys[name] = pattern.keys

    def _places(self, ages: Tensor, fold: int) -> dict[int, Tensor]:
        """The keys of each earlier frame, in the order of its tokens, where there is one for each token."""
        places = {
            self.frame - lag: (ages == lag).nonzero().flatten().cpu() for lag in range(1, self.frame + 1)
        }
        return {frame: keys for frame, keys in places.items() if len(keys) * fold == self.tokens}

    def result(self) -> xr.Dataset:
        """mass, own_mass, other_mass and keys; the three masses of a query add up to 1.

        A frame without a key for each of its tokens is NaN, as is a token that a layer does not see.
        """
        points, steps = self._labels.points, self._labels.steps
        table = {name: tabulate(cells, points, steps) for name, cells in self._cells.items()}
        variables = {
            name: variable(dims, np.moveaxis(table[name], 2, 1), "1", text, SPARSITY)
            for name, (dims, text) in _MEASURED.items()
        }
        keys = np.array([self._keys[name] for name in points])
        variables["keys"] = variable(
            "layer", keys, "1", "keys; uniform attention gives each 1 / keys", SPARSITY
        )
        coords = {name: value for name, value in self._labels.coords().items() if name != "frame"}
        return xr.Dataset(variables, coords | {"frame": np.arange(self.frame)}, {"query_frame": self.frame})


_BY_QUERY = "clip step layer head query"
_MEASURED = {
    "mass": (f"{_BY_QUERY} frame token", "attention of a token to each token of earlier frames"),
    "own_mass": (_BY_QUERY, "attention of a token to all tokens of its own chunk"),
    "other_mass": (
        _BY_QUERY,
        "attention of a token to keys of no frame, and of frames without a key for each token",
    ),
}


def _spread(p: Float[Tensor, "b h q keys"], fold: int, tokens: int) -> Any:
    """Rows over all tokens of a frame. Of attention with folded rows, each row sees its own keys alone."""
    if fold == 1:
        return p
    row = torch.arange(p.shape[2]) // (p.shape[2] // fold)
    places = row[:, None] * p.shape[-1] + torch.arange(p.shape[-1])
    spread = p.new_full((*p.shape[:3], tokens), torch.nan)
    return spread.scatter(-1, places.expand_as(p), p)
