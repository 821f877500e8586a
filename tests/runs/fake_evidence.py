"""The datasets of a run with interventions, invented: what each layer gives is chosen. For tests only."""

import numpy as np
import xarray as xr

from framelens.analyses.decision.repeated_features import TOKEN_COSINE, TOKEN_COSINE_NULL

SIGMAS = [0.2, 0.35, 0.5, 0.65, 0.8]
KINDS = ["hard", "delta", "cross", "cross_only"]


def datasets(
    layers: int = 8,
    clips: int = 8,
    live: list[float] | None = None,
    once: float = 0.99,
    own_work: dict[int, float] | None = None,
    benefit: float = 0.9,
    random_error: float = 10.0,
    other_clip: float = -0.5,
    agreement: float = 0.7,
    sharpness: float = 1.0,
    failing: str | None = None,
    wobble: float = 0.02,
    measured: list[int] | None = None,
) -> dict[str, xr.Dataset]:
    """`live[d]` is the kept share when the first d layers see the past; by default three layers need it.

    `once` is what is kept of it when it is fetched once, `own_work` what layers do at every step beside it.
    """
    rng = np.random.default_rng(0)
    live = [0.0, 0.1, 0.4, 0.97] + [1.0] * (layers - 3) if live is None else live
    own_work = {0: 0.5, layers - 1: 0.6} if own_work is None else own_work
    at = list(range(layers)) if measured is None else measured
    scale = 1 + rng.normal(0, 0.1, clips)
    plain, own = scale * (1 - benefit), scale

    def error(kept: np.ndarray) -> np.ndarray:
        kept = np.asarray(kept, float)
        noise = rng.normal(0, wobble, (clips, *kept.shape))
        own_, plain_ = (part.reshape(-1, *[1] * kept.ndim) for part in (own, plain))
        noise[:, kept == 0] = 0
        return own_ - (kept + noise) * (own_ - plain_)

    def measures(dims: tuple, kept: np.ndarray, network: bool = False) -> dict:
        found = error(kept)
        velocity = np.repeat(found[..., None], len(SIGMAS), -1)
        whole = np.repeat(plain[:, None], len(SIGMAS), -1)
        random, axis = np.full_like(velocity, random_error), ()
        if network:
            velocity, axis = np.stack([velocity, random], 1), ("network",)
            whole = np.stack([whole, np.full_like(whole, random_error)], 1)
        return {
            "mse": (("clip", *dims), found),
            "velocity_error": (("clip", *axis, *dims, "sigma"), velocity),
            "plain_mse": ("clip", plain),
            "plain_velocity_error": (("clip", *axis, "sigma"), whole),
            "plain_sharpness": ("clip", np.ones(clips)),
            "sharpness": (("clip", *dims), np.full_like(found, sharpness)),
        }

    networks = ["trained", "random"]
    each = {"layer": at, "sigma": SIGMAS}
    cut = np.array([[live[d] for d in at], [1 - max(0, live[d + 1] - live[d]) for d in at], [0.5] * len(at)])
    out = [kept - own_work.get(layer, 0.0) for layer, kept in zip(at, cut[1], strict=True)]
    reuse = np.array([[[0.1] for _ in at], [[0.1] for _ in at], [[once] for _ in at], [[once] for _ in at]])
    reuse[3, :, 0] = [live[d + 1] * once for d in at]
    controls = np.full((2, 3, len(at)), other_clip)
    layer = np.arange(-1, layers)
    shape = (clips, 2, 1, len(layer), 1)
    agrees = rng.normal(0, 0.02, shape)
    agrees[:, 0] += agreement
    names = ["identity_edit", "identity_attention", "own_frame_only", "other_clip_cross"]
    must = np.array([0.0, 0, 1, 1])
    effect = np.where(np.array(names) == failing, 1 - must, must)
    dims = ("clip", "network", "frame", "layer", "sigma")
    return {
        "cut": xr.Dataset(
            measures(("where", "layer"), cut, True),
            {"where": ["from", "only", "up_to"], "network": networks} | each,
            {"steps": 10},
        ),
        "reuse": xr.Dataset(
            measures(("kind", "layer", "start"), reuse),
            {"kind": KINDS, "start": [0], "start_sigma": ("start", [1.0])} | each,
        ),
        "reuse_controls": xr.Dataset(
            measures(("source", "kind", "layer"), controls),
            {"source": ["other_clip", "none"], "kind": KINDS[:3]} | each,
        ),
        "leave_one_out": xr.Dataset(measures(("layer",), np.array(out), True), {"network": networks} | each),
        "noise_invariance": xr.Dataset(
            {TOKEN_COSINE: (dims, agrees), TOKEN_COSINE_NULL: (dims, rng.normal(0, 0.02, shape))},
            {"network": networks, "frame": [4], "layer": layer, "sigma": [1.0]},
        ),
        "controls": xr.Dataset(
            {
                "effect": (("clip", "control"), np.tile(effect, (clips, 1))),
                "must_fire": (("clip", "control"), np.tile(must, (clips, 1))),
                "passed": (("clip", "control"), np.tile((effect == must) * 1.0, (clips, 1))),
            },
            {"control": names},
            {"threshold": 0.01},
        ),
    }


def write(folder, found: dict[str, xr.Dataset], manifest: dict) -> None:
    """A run folder with these datasets."""
    import json

    folder.mkdir(parents=True)
    for name, dataset in found.items():
        dataset.assign_coords(clip=range(dataset.sizes["clip"])).to_netcdf(
            folder / f"{name}.nc", engine="netcdf4"
        )
    (folder / "manifest.json").write_text(json.dumps(manifest))
