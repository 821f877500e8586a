"""Attention kernels: the original fused one, and one that also returns the log of its normaliser.

    out = unwatched_attention(q, k, v)         # F.scaled_dot_product_attention as no instrument replaces it
    out, log_sum = attend(q, k, v, scale)      # softmax(scale q k^T) v  and  log sum_k exp(scale q k^T)

The log-normaliser is float32 even for half-precision inputs. No tensor of all queries by all keys is made.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

unwatched_attention = F.scaled_dot_product_attention
"""The original kernel. Instruments replace the attribute of torch.nn.functional, and this file is imported
before they can; code that calls the kernel by this name is not watched."""

aten = torch.ops.aten

BLOCK_SCORES = 2**22  # scores in memory at once where no fused kernel can be used: 16 MiB of float32


def attend(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b h k d"],
    v: Float[Tensor, "b h k d"],
    scale: float,
) -> tuple[Float[Tensor, "b h q d"], Float[Tensor, "b h q"]]:
    """The attention output and the log-normaliser of each query, in nats."""
    if q.device.type == "cpu" and q.shape[-1] <= 512:
        return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, False, scale=scale)
    if q.device.type == "cuda" and q.dtype != torch.float64 and q.shape[-1] <= 256:
        return _attend_cuda(q, k, v, scale)
    return _attend_in_blocks(q, k, v, scale)


def _attend_cuda(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    queries, width = q.shape[-2:]
    # A copy of a long past costs as much as its attention, so only what the kernels cannot read is copied:
    # widths that are not multiples of 8 (zeros added to q and k change no score), and repeated rows.
    q, k, v = (F.pad(x, (0, -width % 8)) if width % 8 or 0 in x.stride() else x for x in (q, k, v))
    if q.dtype == torch.float32:
        found = aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, False, scale=scale)
    else:
        found = aten._scaled_dot_product_flash_attention(q, k, v, 0.0, False, False, scale=scale)
    # The efficient kernel pads its log-normaliser along the queries.
    return found[0][..., :width], found[1][..., :queries]


def _attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    rows = max(1, BLOCK_SCORES // (q.shape[0] * q.shape[1] * k.shape[-2]))
    parts = []
    for block in q.split(rows, dim=-2):
        score = compute_scores(block, k, scale)
        parts.append(((score.softmax(-1).to(v.dtype) @ v), score.logsumexp(-1)))
    return torch.cat([out for out, _ in parts], -2), torch.cat([log_sum for _, log_sum in parts], -1)


def compute_scores(
    q: Float[Tensor, "*b q d"], k: Float[Tensor, "*b k d"], scale: float
) -> Float[Tensor, "*b q k"]:
    """scale q k^T in float32 or float64: from half-precision scores a mass is wrong by up to 0.06."""
    with torch.autocast(q.device.type, enabled=False):
        return (widen(q) * scale) @ widen(k).mT


def widen(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The tensor in float32, or as it is if it is float64."""
    return x if x.dtype == torch.float64 else x.float()
