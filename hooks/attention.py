"""AttentionTap and Pattern: what a fused attention call attends to, without its map of probabilities.

    def sink(at, name, pattern):
        mass, entropy = pattern.subsample(64, seed=0).statistics()

    with AttentionTap(model.attn_dict, "blocks.*.attn", sink) as tap:
        rollout(model, noise, sigmas, on_pass=tap.on_pass)

Fused kernels compute every statistic, so no tensor of all queries by all keys is made.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from framelens.hooks._calls import AttentionCall, AttentionInstrument, AttentionPoint
from framelens.hooks.pattern import Pattern

__all__ = ["AttentionPoint", "AttentionTap", "Pattern", "self_test"]


class AttentionTap(AttentionInstrument):
    """Calls `sink(at, name, pattern)` after each attention call inside a watched module.

    `at` is the announced pass (None without one), `name` a key of `points`, `pattern` the Pattern of the
    current frame's queries: q [b h q d], k [b h k d], key_age [k] (None before the first announced pass).

    The call itself is not changed, so the network's output is bit for bit the same. ValueError for a call
    with a mask, dropout or shared heads, which a Pattern cannot describe, for a key_age of the wrong length,
    and for a glob without a match; SilentHookError for a compiled module, and when a module does not make
    exactly one call in each announced pass.

    >>> import framelens
    >>> import torch
    >>> model = framelens.load("dense-tiles")
    >>> context = model.start(1, torch.zeros(1, 2, dtype=torch.long))
    >>> x, sigma = torch.randn(1, 1, 3, 20, 20), torch.tensor([0.9])
    >>> shapes = []
    >>> with framelens.AttentionTap(
    ...     model.attn_dict, "blocks.5.attn", lambda at, name, pattern: shapes.append(tuple(pattern.q.shape))
    ... ):
    ...     velocity = model.denoise(x, sigma, context)
    >>> shapes  # clips, heads, queries, width of a head
    [(1, 4, 25, 32)]
    """

    def __init__(
        self,
        points: Mapping[str, AttentionPoint],
        patterns: str | Iterable[str],
        sink: Callable[[Any, str, Pattern], None],
    ):
        super().__init__(points, patterns)
        self.sink = sink

    def _on_call(self, name: str, call: AttentionCall) -> Tensor:
        point = self._points[name]
        with torch.no_grad():
            q = call.q[:, :, -(point.own_queries or call.q.shape[2]) :]
            self.sink(self.at, name, Pattern(q, call.k, call.scale, call.key_age, fold=point.fold))
        return call.out


def self_test(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> None:
    """Raise RuntimeError if the fused kernels of this device are off, on few tokens against float64.

    Log-normalisers differ between kernels and versions (padding, base 2), and a wrong one gives wrong masses
    without an error. The second size fills no tile of a kernel: its tokens and its width are padded.
    """
    for tokens, width in ((64, 32), (52, 20)):
        _test_kernels(device, dtype, tokens, width)


def _test_kernels(device: str | torch.device, dtype: torch.dtype, tokens: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 2, tokens, width, generator=generator).to(dtype)
    pattern = Pattern(q.to(device), k.to(device), 0.5, torch.arange(4).repeat_interleave(tokens // 4))
    q, k = q.double(), k.double()
    score = 0.5 * q @ k.mT
    p = score.softmax(-1)
    exact = {
        "log_normaliser": (pattern.log_normaliser(), score.logsumexp(-1), 1e-3),
        "lag_mass": (pattern.lag_mass(), p.unflatten(-1, (4, tokens // 4)).sum(-1), 1e-3),
        "entropy": (pattern.entropy(), -torch.xlogy(p, p).sum(-1), 1e-3),
        "rows": (pattern.rows(0, tokens), p, 1e-3),
        # Only an expectation is rounded to the dtype of the call.
        "expect": (pattern.expect(pattern.k), p @ k, max(1e-3, 16 * torch.finfo(dtype).eps)),
    }
    for name, (got, expected, limit) in exact.items():
        error = (got.cpu().double() - expected).abs().max().item()
        if not error <= limit:
            raise RuntimeError(
                f"{name} of {tokens} tokens on {device} in {dtype} is off by {error:.1e}, expected at most "
                f"{limit:.1e}: its attention kernel cannot be trusted with this version of torch"
            )
