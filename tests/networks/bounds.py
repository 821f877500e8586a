"""Whether two computations of one quantity agree, and how far rounding may put them apart.

assert_same(cached, parallel)                                        # in float64, to 1e-9 of the values' size
assert_same(ours, theirs, bound=rounding(torch.float32, 16, layers, theirs.abs().max()))
"""

import math
from typing import Any

import numpy as np
import torch

PRODUCTS = 8
"""Matrix products in a row in a layer: q, scores, values, o, cross-attention, two of an MLP; the norms."""
CERTAIN = 6.0
"""Standard deviations that no sum exceeds: by more than six, one in 5e8 does."""


def rounding(dtype: torch.dtype, width: int, depth: int, scale: Any = 1.0) -> float:
    """How far apart two orders of summation may put values of that scale in a network of `depth` layers.

    `scale` is the largest value, or the values themselves.

    u = eps / 2 is the relative error of one rounding. A sum of n products is off by at most n u of the size
    of its result, and by no more than CERTAIN sqrt(n) u with the chance of a normal variable to be that far
    off, as roundings are independent (Higham and Mary 2019). Half-precision kernels sum in float32 and round
    the result once, so a product is off by u + CERTAIN sqrt(width) u_sum, with u_sum that of float32 or, for
    float64, its own. A residual network passes errors on about as large as they are, so those of PRODUCTS
    products in each of `depth` layers add up; two computations are twice as far apart as each from the truth.
    """
    u, u_sum = torch.finfo(dtype).eps / 2, min(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps) / 2
    return 2 * PRODUCTS * depth * (u + CERTAIN * math.sqrt(width) * u_sum) * _largest(scale)


def assert_same(found, expected, rtol: float = 1e-9, bound: float | None = None) -> None:
    """Both are one quantity: apart by no more than `rtol` of the largest value expected, NaN where NaN is.

    That is for float64, where no processor's order of summation comes near 1e-9 and a wrong term is far
    beyond; of float32 and below the largest difference is given as `bound`, from `rounding`.
    """
    exact = bound is None
    found, expected = _array(found, exact), _array(expected, exact)
    expected = np.broadcast_to(expected, found.shape) if expected.ndim == 0 else expected
    assert found.shape == expected.shape, f"{found.shape}, expected {expected.shape}"
    assert np.array_equal(np.isnan(found), np.isnan(expected)), "NaN in other places"
    size, apart = _largest(expected), _largest(found - expected)
    allowed = rtol * size if bound is None else bound
    assert apart <= allowed, f"apart by {apart:.2e} with values up to {size:.2e}, allowed {allowed:.2e}"


def differ(found, other, rtol: float = 1e-3) -> bool:
    """Whether they are further apart than `rtol` of the largest value, as a wrong term puts them."""
    found, other = (torch.as_tensor(x).detach().double() for x in (found, other))
    return bool((found - other).abs().max() > rtol * other.abs().max())


def _array(values: Any, exact: bool = False) -> np.ndarray:
    """In float64; refused where values are compared as if they were exact, and are not."""
    values = values.detach().cpu() if isinstance(values, torch.Tensor) else np.asarray(values)
    is_float64 = values.dtype in (torch.float64, np.float64) or not _is_floating(values)
    assert is_float64 or not exact, f"compared in {values.dtype}: give a bound from `rounding`"
    return np.asarray(values.double() if isinstance(values, torch.Tensor) else values, np.float64)


def _is_floating(values: Any) -> bool:
    return values.is_floating_point() if isinstance(values, torch.Tensor) else values.dtype.kind == "f"


def _largest(values: Any) -> float:
    return float(np.nanmax(np.abs(_array(values)), initial=0.0))
