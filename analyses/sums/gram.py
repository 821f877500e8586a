"""Similarity measures between denoising steps, all from step x step Gram matrices.

With X_s the n x d features at step s, m_s their mean token and Z_s = X_s - 1 m_sᵀ,
two Gram matrices determine every measure: G_st = <Z_s, Z_t> and M_st = n <m_s, m_t>:

    <X_s, X_t>                   = G_st + M_st
    <X_s - 1 m_sᵀ, X_t - 1 m_sᵀ> = G_st                     (the rows of Z_s sum to zero)
    |X_t - 1 m_sᵀ|²              = G_tt + M_tt + M_ss - 2 M_st
    |X_s - X_t|²                 = G_ss + G_tt - 2 G_st + M_ss + M_tt - 2 M_st

So centring by the reference step's mean is exact without a loop over pairs of features, and G may come from
sketches of Z_s, from which the mean was removed before.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def similarities(
    centred: Float[Tensor, "*l s m"],
    kernel: Float[Tensor, "*l s p"],
    norms: Float[Tensor, "*l s n"],
    mean: Float[Tensor, "*l s d"],
    kept_pairs: float = 1.0,
) -> dict[str, Float[Tensor, "..."]]:
    """Every measure as [l s s], reference step first, and common_mode as [l s].

    `centred` holds Z_s or its flat sketch, `kernel` the entries of Z_s Z_sᵀ above the
    diagonal or a sketch with the share `kept_pairs` of them, `norms` its diagonal.
    Sums run in float64. 0 / 0 is NaN: features that are all zero have no direction.
    """
    G, M = _gram(centred), norms.shape[-1] * _gram(mean)
    squares, shift = _diagonal(G), _distances(M)
    lengths = _diagonal(G + M).sqrt()
    same = torch.eye(G.shape[-1], dtype=torch.bool, device=G.device)
    return {
        "cosine": (G + M) / _outer(lengths),
        "centred_cosine": G / (squares[..., :, None] * (squares[..., None, :] + shift)).sqrt(),
        "relative_l2": (_distances(G) + shift).masked_fill(same, 0).sqrt() / lengths[..., :, None],
        "cka": _cka(kernel, norms, kept_pairs),
        "common_mode": (_diagonal(M) / (norms.double().sum(-1) + _diagonal(M))).sqrt(),
    }


def gram_products(steps: int, tokens: int, width: int, centred: int, kernel: int) -> int:
    """Operations of all Gram matrices in `similarities`, a multiply-add counts as two.

    `centred` and `kernel` are the lengths of those vectors. Below four tokens CKA is NaN.
    """
    cka = kernel + tokens if tokens >= 4 else 0
    return 2 * steps**2 * (centred + width + cka)


def _cka(
    kernel: Float[Tensor, "*l s p"], norms: Float[Tensor, "*l s n"], kept_pairs: float
) -> Float[Tensor, "*l s s"]:
    """Linear CKA between steps from the unbiased HSIC estimator (Song et al. 2012, eq. 5).

    n (n-3) HSIC = Σ_{i≠j} K_ij L_ij + tr K tr L / ((n-1)(n-2)) - 2/(n-2) Σ_i K_ii L_ii

    for kernels of centred tokens, whose rows sum to -K_ii off the diagonal.
    NaN below four tokens, where the estimator is not defined.
    """
    n = norms.shape[-1]
    if n < 4:
        return norms.new_full((*norms.shape[:-1], norms.shape[-2]), torch.nan, dtype=torch.float64)
    pairs = 2 / kept_pairs * _gram(kernel)
    hsic = pairs + _outer(norms.double().sum(-1)) / ((n - 1) * (n - 2)) - 2 / (n - 2) * _gram(norms)
    return hsic / _outer(_diagonal(hsic).clamp(min=0).sqrt())


def _gram(vectors: Float[Tensor, "*l s m"]) -> Float[Tensor, "*l s s"]:
    vectors = vectors.double()
    return vectors @ vectors.mT


def _diagonal(gram: Float[Tensor, "*l s s"]) -> Float[Tensor, "*l s"]:
    return gram.diagonal(dim1=-2, dim2=-1)


def _outer(values: Float[Tensor, "*l s"]) -> Float[Tensor, "*l s s"]:
    return values[..., :, None] * values[..., None, :]


def _distances(gram: Float[Tensor, "*l s s"]) -> Float[Tensor, "*l s s"]:
    """Squared distances between the vectors of a Gram matrix; never negative by rounding."""
    squares = _diagonal(gram)
    return (squares[..., :, None] + squares[..., None, :] - 2 * gram).clamp(min=0)
