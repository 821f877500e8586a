"""The size of what attention and MLP write into the residual stream, and the size of the stream itself."""

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from framelens.analyses.cost import FLOAT32, StatisticCost, WatchedShape
from framelens.analyses.points import block_of
from framelens.analyses.sums.layout import PROBING, Labels, Moment, tabulate, variable

reads: tuple[str, ...] = ("*blocks.*.hook_attn_out", "*blocks.*.hook_mlp_out", "*blocks.*.hook_resid_post")

_MEANINGS = {
    "attn_out": "root mean square token norm of the attention output",
    "mlp_out": "root mean square token norm of the MLP output",
    "resid_post": "root mean square token norm of the residual stream after the block",
}


class Statistic:
    """Root mean square token norms, sqrt(mean_n |x_n|²), by frame, layer and step."""

    def __init__(self):
        self._labels = Labels()
        self._norms: dict[str, dict[tuple[int, str, int], Tensor]] = {kind: {} for kind in _MEANINGS}

    def add(self, at: Moment, name: str, value: Float[Tensor, "b n d"]) -> None:
        """Keeps one number per clip."""
        kind, block = name.rpartition("hook_")[2], block_of(name)
        if kind not in self._norms:
            raise ValueError(f"block_norms cannot read {name!r}; it reads {list(reads)}")
        self._labels.note(at, block, kind)
        norm = torch.linalg.vector_norm(value, dim=(1, 2), dtype=torch.float32)
        self._norms[kind][at.frame, block, at.step] = norm / value.shape[1] ** 0.5

    def result(self) -> xr.Dataset:
        """attn_out, mlp_out, resid_post (those seen) by clip, frame, layer, step; `point` names the block."""
        axes = self._labels.frames, self._labels.points, self._labels.steps
        variables = {
            kind: variable("clip frame layer step", tabulate(norms, *axes), "1", _MEANINGS[kind], PROBING)
            for kind, norms in self._norms.items()
            if norms
        }
        return xr.Dataset(variables, self._labels.coords())

    def cost(self, shape: WatchedShape) -> StatisticCost:
        """A square and a sum for each entry; one number is kept for each value."""
        values = len(_MEANINGS) * shape.layers * shape.steps * shape.frames
        return StatisticCost(0, 2 * values * shape.tokens * shape.width, FLOAT32 * values)
