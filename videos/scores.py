"""Scores of a video against the true one, frame by frame, for pixels in [-1, 1].

psnr(video, truth)      # dB, [b f]
ssim(video, truth)      # 1 for equal frames, [b f]
"""

import numpy as np
from jaxtyping import Float

from framelens.records.extras import extra

Video = Float[np.ndarray, "*batch c h w"]
Score = Float[np.ndarray, "*batch"]
GAUSSIAN_SIDE = 11
"""Pixels of a side that SSIM with Gaussian windows needs."""
BEST_PSNR = 100.0
"""The PSNR of identical frames, in dB."""


def psnr(video: Video, truth: Video) -> Score:
    """Peak signal-to-noise ratio in dB over (c, h, w), peak 2; identical frames give 100 dB."""
    error = np.mean((np.clip(video, -1, 1) - truth) ** 2, axis=(-3, -2, -1))
    return np.minimum(10 * np.log10(4 / np.maximum(error, 1e-12)), BEST_PSNR)


def ssim(video: Video, truth: Video, gaussian: bool = False) -> Score:
    """Structural similarity over (c, h, w), windows of 7 x 7 pixels (Wang et al. 2004).

    `gaussian` weights windows of 11 x 11 pixels by a Gaussian of 1.5 pixels, as published tables have it.
    Needs the extra `scores`.
    """
    with extra("scores"):
        from skimage.metrics import structural_similarity

    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False} if gaussian else {}
    frames, true_frames = (x.reshape(-1, *x.shape[-3:]) for x in np.broadcast_arrays(video, truth))
    scores = [
        structural_similarity(np.clip(frame, -1, 1), true, data_range=2.0, channel_axis=0, **how)
        for frame, true in zip(frames, true_frames, strict=True)
    ]
    return np.array(scores).reshape(np.broadcast_shapes(video.shape[:-3], truth.shape[:-3]))
