"""The past of a chunk in memory, for batches of several sizes: made before any instrument is attached."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from framelens.diffusion.contract import CausalDiffuser
from framelens.models.parts.contexts import narrow, prepare, widen
from framelens.videos import Window


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


class Pasts:
    """The contexts of a chunk whose past is one of the clips: of "own" always, of another one for a while.

    All rows of a batch have the same past. With `is_shared` the rows of all batches share one memory: of a
    large model, only one fits.
    """

    def __init__(
        self,
        model: CausalDiffuser,
        clips: dict[str, Clip],
        frame: int,
        sizes: Collection[int],
        is_shared: bool,
    ):
        """`frame` is the chunk's first frame, `sizes` are numbers of rows."""
        self.model, self.clips, self.frame, self.is_shared = model, clips, frame, is_shared
        self._at_level: dict[tuple[int, str, float], Any] = {}
        self._narrow: dict[tuple[int, str], Any] = {}
        self.contexts = self._encode("own", sizes)
        """By number of rows and past."""

    def _encode(self, past: str, sizes: Collection[int]) -> dict[tuple[int, str], Any]:
        one = self._encode_rows(1, past) if self.is_shared else None
        return {(rows, past): widen(one, rows) or self._encode_rows(rows, past) for rows in sizes}

    @torch.no_grad()
    def _encode_rows(self, rows: int, past: str) -> Any:
        video, cond = self.clips[past].video, self.clips[past].cond
        chunk = self.model.geometry.frames_per_chunk
        context = self.model.start(rows, None if cond is None else cond.expand(rows, *cond.shape[1:]))
        for frame in range(0, self.frame, chunk):
            x = video[:, frame : frame + chunk].expand(rows, -1, -1, -1, -1)
            context = self.model.encode(x, context)
        return context

    @contextmanager
    def remember(self, past: str, rows: int) -> Iterator[None]:
        """That past in memory, for passes of this number of rows; freed afterwards."""
        others = {} if past == "own" else self._encode(past, {rows})
        self.contexts |= others
        try:
            yield
        finally:
            for key in others:
                del self.contexts[key]
            self._at_level = {key: kept for key, kept in self._at_level.items() if key[:2] not in others}

    def at_level(self, sigma: float, rows: int, past: str = "own") -> Any:
        """The context for passes at that noise level; what depends on the level alone is computed once.

        KeyError for a number of rows for which there is none.
        """
        key = rows, past, sigma
        if key not in self._at_level:
            context = (self.contexts | self._narrow)[rows, past]
            level = torch.full((1,), sigma, device=self.clips[past].video.device)
            self._at_level[key] = prepare(self.model, context, level)
        return self._at_level[key]

    def narrow(self, rows: int) -> bool:
        """Makes a context of the own past for fewer rows, in the memory of that for the most; whether it can
        be made."""
        if (rows, "own") not in self.contexts | self._narrow:
            most = max(rows for rows, past in self.contexts if past == "own")
            made = None if self.is_shared or rows > most else self._make_narrow(most, rows)
            if made is None:
                return False
            self._narrow[rows, "own"] = made
        return True

    def _make_narrow(self, most: int, rows: int) -> Any:
        return narrow(self.contexts[most, "own"], rows, room=self.model.geometry.tokens_per_chunk)
