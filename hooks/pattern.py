"""Pattern: statistics of the probabilities of one attention call, without the map of queries by keys.

For example, the mass of 64 queries on each earlier frame, and its entropy:

    mass, entropy = Pattern(q, k, scale, key_age).subsample(64, seed=0).statistics()
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from framelens.hooks.fold import merge_rows
from framelens.hooks.kernel import attend, compute_scores, widen

EXPLICIT_SCORES = 2**18
"""Up to this number of scores the explicit float32 softmax is used. On one CPU thread it takes half the time
of the fused kernel at 2**14 scores (13 frames of 16 tokens), as much at 2**18, 1.5 times as much at 2**21."""

BATCHED_OUTPUTS = 2**22
"""One call for all frames makes an output for each frame; beyond this many values, one call per frame."""


class Pattern:
    """The attention probabilities p = softmax(scale q k^T) of one call, as statistics.

    `key_age` as in AttentionPoint, or None. `fraction` is the share of the call's queries that this pattern
    has. Statistics are float32 (float64 for float64 inputs) and exact for each query of the pattern. Groups
    of `fold` neighbouring rows of q and k belong to one clip, each row with its own keys; results have one
    row for each clip, with the queries of its rows one after another.
    """

    def __init__(
        self,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b h k d"],
        scale: float | None = None,
        key_age: Int[Tensor, " ages"] | None = None,
        fraction: float = 1.0,
        fold: int = 1,
    ):
        if len(q) % fold:
            raise ValueError(f"{len(q)} rows do not fold into clips of {fold} rows each")
        if key_age is not None and len(key_age) != k.shape[-2]:
            raise ValueError(f"key_age has {len(key_age)} entries, expected {k.shape[-2]}: one for each key")
        self.q, self.k = q.detach(), k.detach()
        self.scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
        self.key_age = key_age
        self.fraction = fraction
        self.fold = fold

    @property
    def queries(self) -> int:
        """The number of queries of a clip."""
        return self.fold * self.q.shape[-2]

    @property
    def keys(self) -> int:
        """The number of keys."""
        return self.k.shape[-2]

    def subsample(self, queries: int | None, seed: int) -> "Pattern":
        """The pattern of this many queries, drawn uniformly without replacement; the same for the same seed.

        None, or a number that is not smaller than there are, keeps all.
        """
        if queries is None or queries >= self.queries:
            return self
        if queries < 1:
            raise ValueError(f"got {queries} queries, expected at least 1, or None for all of them")
        index = _draw_queries(self.queries, queries, seed, self.q.device)
        fraction = self.fraction * queries / self.queries
        if self.fold == 1:
            return Pattern(self.q.index_select(-2, index), self.k, self.scale, self.key_age, fraction)
        # Each query becomes a row of its own, with the keys of its former row.
        row, place = index // self.q.shape[-2], index % self.q.shape[-2]
        q = self.q.unflatten(0, (-1, self.fold))[:, row, :, place].movedim(0, 1)
        k = self.k.unflatten(0, (-1, self.fold)).index_select(1, row)
        q, k = q.flatten(0, 1).unsqueeze(-2), k.flatten(0, 1)
        return Pattern(q, k, self.scale, self.key_age, fraction, queries)

    def rows(self, start: int, stop: int) -> Float[Tensor, "b h rows k"]:
        """The explicit probabilities of queries start to stop; for small cases, tests and pictures."""
        if self.fold == 1:
            return compute_scores(self.q[:, :, start:stop], self.k, self.scale).softmax(-1)
        return self._merge_rows(compute_scores(self.q, self.k, self.scale).softmax(-1))[:, :, start:stop]

    def expect(self, values: Shaped[Tensor, "*b_h k m"]) -> Float[Tensor, "b h q m"]:
        """sum_k p[k] values[k], for values [k m] or [b h k m], where b counts the rows of q.

        Uses the fused kernel. Computed and returned in the wider dtype of the values and the queries.
        """
        dtype = torch.promote_types(self.q.dtype, values.dtype)
        q, k = self.q.to(dtype), self.k.to(dtype)
        values = values.to(dtype).expand(*k.shape[:2], *values.shape[-2:])
        width = k.shape[-1]
        # The kernel takes values exactly as wide as the keys.
        padded = F.pad(values, (0, -values.shape[-1] % width))
        parts = [attend(q, k, part, self.scale)[0] for part in padded.split(width, dim=-1)]
        return self._merge_rows(torch.cat(parts, -1)[..., : values.shape[-1]])

    def log_normaliser(self) -> Float[Tensor, "b h q"]:
        """log sum_k exp(scale q k), in nats."""
        return self._merge_rows(attend(self.q, self.k, self.k, self.scale)[1])

    def entropy(self) -> Float[Tensor, "b h q"]:
        """-sum_k p log p in nats, as log_normaliser - scale q . E_p[k].

        Half-precision queries and keys are widened: the rounding of E_p[k] alone
        would cost up to 0.2 nats.
        """
        q, k = widen(self.q), widen(self.k)
        mean_key, log_sum = attend(q, k, k, self.scale)
        return self._merge_rows(log_sum - self.scale * torch.linalg.vecdot(q, mean_key))

    def lag_mass(self) -> Float[Tensor, "b h q lag"]:
        """The probability on the keys of each lag 0, 1, ..., max(key_age), for each query.

        The softmax runs over all keys; mass on keys of age -1 is counted in no lag. Computed from the
        log-normalisers of the frames, which are float32 whatever the inputs are.
        """
        frames = self._frames()
        log_sum, _ = frames.attend(self.q, frames.sort(self.k), self.scale)
        return self._merge_rows(frames.by_lag(log_sum.softmax(-1)))

    def mean_lag(self) -> Float[Tensor, "b h q"]:
        """sum_lag lag * lag_mass, in frames; keys that are not of a frame add nothing."""
        mass = self.lag_mass()
        return mass @ torch.arange(mass.shape[-1], device=mass.device, dtype=mass.dtype)

    def statistics(self) -> tuple[Float[Tensor, "b h q lag"], Float[Tensor, "b h q"]]:
        """`(lag_mass(), entropy())` in one pass over the keys, with inputs widened to float32."""
        mass, entropy = self._by_row()
        return self._merge_rows(mass), self._merge_rows(entropy)

    def _by_row(self) -> tuple[Tensor, Tensor]:
        frames = self._frames()
        q, k = widen(self.q), frames.sort(widen(self.k))
        if q[..., 0].numel() * k.shape[-2] <= EXPLICIT_SCORES:
            log_p = compute_scores(q, k, self.scale).log_softmax(-1)
            p = log_p.exp()
            return frames.by_lag(frames.sum(p)), -torch.linalg.vecdot(p, log_p)
        log_sum, energy = frames.attend(q, k, self.scale)
        total = log_sum.logsumexp(-1, keepdim=True)
        mass = (log_sum - total).exp()
        return frames.by_lag(mass), total.squeeze(-1) - torch.linalg.vecdot(mass, energy)

    def _merge_rows(self, x: Tensor) -> Tensor:
        return merge_rows(x, self.fold)

    def _frames(self) -> "_Frames":
        if self.key_age is None:
            raise ValueError(
                "this pattern has no key_age, so the frames of its keys are not known: give it one"
            )
        return _Frames.of(tuple(self.key_age.tolist()))


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def _draw_queries(count: int, queries: int, seed: int, device: torch.device) -> Int[Tensor, " queries"]:
    """The places of that many queries of `count`, in order; kept, as a copy to a GPU makes the CPU wait."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[:queries].sort().values.to(device)


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def _columns(places: tuple[int, ...], device: torch.device) -> Int[Tensor, " frame"]:
    """These places as an index on that device; kept as in `_draw_queries`."""
    return torch.tensor(places, device=device)


def _runs(ages: Sequence[int]) -> tuple[list[int], list[int]]:
    """The ages that follow each other, and how many keys have each."""
    runs = [(age, len(list(run))) for age, run in groupby(ages)]
    return [age for age, _ in runs], [count for _, count in runs]


@dataclass(frozen=True)
class _Frames:
    """Keys grouped by age: `sizes[j]` keys have age `ages[j]`; they are consecutive once sorted."""

    ages: list[int]
    sizes: list[int]
    order: Int[Tensor, " k"] | None

    @classmethod
    @lru_cache(maxsize=64)
    @torch.inference_mode(False)
    def of(cls, key_ages: tuple[int, ...]) -> "_Frames":
        """The groups of keys of these ages; kept, since all layers of all steps of a frame ask for them."""
        ages, sizes = _runs(key_ages)
        if len(set(ages)) == len(ages):
            return cls(ages, sizes, None)
        order = sorted(range(len(key_ages)), key=key_ages.__getitem__)
        return cls(*_runs([key_ages[place] for place in order]), torch.tensor(order))

    def sort(self, k: Float[Tensor, "b h k d"]) -> Float[Tensor, "b h k d"]:
        return k if self.order is None else k.index_select(-2, self.order.to(k.device))

    def attend(
        self, q: Float[Tensor, "b h q d"], k: Float[Tensor, "b h k d"], scale: float
    ) -> tuple[Float[Tensor, "b h q frame"], Float[Tensor, "b h q frame"]]:
        """For each frame alone: the log-normaliser, and the mean score scale q . E[k] under its softmax."""
        if len(set(self.sizes)) == 1 and q.numel() * len(self.sizes) <= BATCHED_OUTPUTS:
            return self._attend_batched(q, k, scale)
        log_sums, energies = [], []
        for part in k.split(self.sizes, dim=-2):
            mean_key, log_sum = attend(q, part, part, scale)
            log_sums.append(log_sum)
            energies.append(scale * torch.linalg.vecdot(q, mean_key))
        return torch.stack(log_sums, -1), torch.stack(energies, -1)

    def _attend_batched(self, q: Tensor, k: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        b, h = q.shape[:2]
        k = k.flatten(0, 1).unflatten(1, (len(self.sizes), -1)).transpose(0, 1)
        q = q.flatten(0, 1).expand(len(self.sizes), -1, -1, -1)
        mean_key, log_sum = attend(q, k, k, scale)
        energy = scale * torch.linalg.vecdot(q, mean_key)
        by_frame = torch.stack([log_sum, energy]).movedim(1, -1).unflatten(1, (b, h))
        return by_frame[0], by_frame[1]

    def sum(self, p: Float[Tensor, "b h q k"]) -> Float[Tensor, "b h q frame"]:
        if len(set(self.sizes)) == 1:
            return p.unflatten(-1, (len(self.sizes), -1)).sum(-1)
        return torch.stack([part.sum(-1) for part in p.split(self.sizes, dim=-1)], -1)

    def by_lag(self, mass: Float[Tensor, "b h q frame"]) -> Float[Tensor, "b h q lag"]:
        # Age -1 goes to the column after the last lag, which is cut off.
        width = max(self.ages) + 2
        columns = _columns(tuple(age % width for age in self.ages), mass.device)
        return mass.new_zeros(*mass.shape[:-1], width).index_copy_(-1, columns, mass)[..., :-1]
