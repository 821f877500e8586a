"""framelens: an interpretability and probing toolkit for causal video diffusers.

    import framelens

    model = framelens.load("dense-tiles")                       # a CausalDiffuser
    with framelens.Trace(model.hook_dict, "blocks.*.hook_resid_post", sink) as trace:
        framelens.rollout(model, noise, sigma_grid(20), on_pass=trace.on_pass)
    run = framelens.open_run("runs/dense-tiles/default")        # the results of a probe run

A name is imported when it is first used, so `import framelens` alone loads neither torch nor xarray.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__: str  # found by __getattr__

if TYPE_CHECKING:
    from framelens.diffusion.sampler import rollout
    from framelens.hooks import AttentionTap, Edit, Trace, record, run_with_cache, together
    from framelens.models import load
    from framelens.models.variants.fetch_once import fetch_once
    from framelens.models.variants.separated import separate
    from framelens.reports.runs import open_run

__path__ = [str(Path(__file__).resolve().parent)]
"""The checkout itself, also where Python found this file through a link in site-packages."""

_HOMES = {
    "AttentionTap": "hooks",
    "Edit": "hooks",
    "Trace": "hooks",
    "fetch_once": "models.variants.fetch_once",
    "load": "models",
    "open_run": "reports.runs",
    "record": "hooks",
    "rollout": "diffusion.sampler",
    "run_with_cache": "hooks",
    "separate": "models.variants.separated",
    "together": "hooks",
}

__all__ = [
    "AttentionTap",
    "Edit",
    "Trace",
    "fetch_once",
    "load",
    "open_run",
    "record",
    "rollout",
    "run_with_cache",
    "separate",
    "together",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("framelens.records").package_version()
    if name not in _HOMES:
        raise AttributeError(f"framelens has no {name!r}; there are {', '.join(sorted(_HOMES))}")
    return getattr(import_module(f"framelens.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "__version__"})
