"""What one affine map for all tokens reads from the tokens of a layer about clips it has never seen.

r2, read = read_by_one_map(features, targets, films, shown)   # [c n d], [c n m], a name per clip, [t d]
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from framelens.analyses.readout import fit_left_out


def read_by_one_map(
    features: Float[Tensor, "c n d"],
    targets: Float[Tensor, "c n m"],
    films: Sequence[str],
    shown: Float[Tensor, "t d"],
) -> tuple[Float[Tensor, " c"], Float[Tensor, "t m"]]:
    """R² by clip, and what is read from tokens of the first clip, which need not be among its features.

    The regression of `fit_left_out` with one mean and one map for all tokens; clips of the same film are left
    out together. R² = 1 - Σ|y - ŷ|² / Σ|y - ȳ|² over the tokens of a clip, with ȳ the mean of all tokens of
    the training clips. ValueError below LEAST films.
    """
    clips, tokens = features.shape[:2]
    # Each token counts as a clip of one token.
    x, y = features.flatten(0, 1)[:, None], targets.flatten(0, 1)[:, None].double()
    error, baseline = x.new_zeros(clips * tokens).double(), x.new_zeros(clips * tokens).double()
    read = torch.empty(0)
    for fit in fit_left_out(x, y, [film for film in films for _ in range(tokens)]):
        error[fit.clips] = (y[fit.clips] - fit.read(x[fit.clips])).square().sum((1, 2))
        baseline[fit.clips] = (y[fit.clips] - fit.values).square().sum((1, 2))
        if 0 in fit.clips:
            read = fit.read(shown[:, None])[:, 0]
    return 1 - error.view(clips, -1).sum(1) / baseline.view(clips, -1).sum(1), read
