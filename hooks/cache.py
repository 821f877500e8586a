"""What TransformerLens users expect of a run, of any model with a hook_dict: a cache, with its moments.

    velocity, cache = run_with_cache(model, x, sigma, context)          # one denoising pass
    cache["blocks.3.hook_resid_post"], cache["resid_post", 3], cache.stack_activation("resid_post")

    with record(model, "*.hook_resid_post") as cache:                   # a whole rollout
        rollout(model, noise, sigmas, on_pass=cache.on_pass)
    cache.at(frame=4, step=0, role="denoise")["resid_post", -1]

Everything recorded stays in memory: filter names, or use Trace, which hands values to a sink instead.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from framelens.hooks._instrument import matching
from framelens.hooks.trace import Trace

NamesFilter = str | Iterable[str] | Callable[[str], bool] | None
"""Names or globs, or a function of a name; None for every point."""


@dataclass(frozen=True)
class Entry:
    """A value at a place, at a moment; the moment is None where no pass was announced."""

    at: Any
    name: str
    value: Tensor


class Cache(Mapping[str, Tensor]):
    """Recorded values by hook name; a name gives its tensor where that was recorded at one moment only.

    `cache["resid_post", 3]` and `cache["q", -1]` are TransformerLens' short forms; a third word tells apart
    what is still ambiguous (`cache["q", 0, "decoder"]`). Of several moments one is chosen by `at`.
    """

    def __init__(self, entries: Iterable[Entry] = ()):
        self.entries = list(entries)
        self._announce: Callable[[Any], None] = _nobody_records

    def on_pass(self, at: Any) -> None:
        """The sampler's callback while this cache is being recorded."""
        self._announce(at)

    @property
    def moments(self) -> list[Any]:
        """The passes that something was recorded in, in their order."""
        return list(dict.fromkeys(entry.at for entry in self.entries))

    def at(self, **moment: Any) -> "Cache":
        """What was recorded at such moments: frame=, step=, role=, branch=; ValueError where nothing was."""
        chosen = [entry for entry in self.entries if _is_at(entry.at, moment)]
        if not chosen:
            raise ValueError(f"nothing was recorded at {moment}; there are {_some(self.moments)}")
        return Cache(chosen)

    def to(self, device: str | torch.device) -> "Cache":
        """The same values on that device."""
        return Cache(Entry(entry.at, entry.name, entry.value.to(device)) for entry in self.entries)

    def stack_activation(self, activation: str, group: str | None = None) -> Tensor:
        """What every recorded layer gave, as one tensor [layer ...]: "resid_post", "attn_out", "z", ..."""
        layers = sorted(self._layers(activation, group))
        if not layers:
            raise KeyError(f"no layer gave {activation!r}; there are {sorted(self)}")
        values = [self[activation, layer, group] for layer in layers]
        return torch.stack([value.to(values[0].device) for value in values])

    def __getitem__(self, name: Any) -> Tensor:
        full = self._full_name(name)
        found = [entry for entry in self.entries if entry.name == full]
        if not found:
            raise KeyError(f"{name!r} was not recorded; there are {sorted(self)}")
        if len(found) > 1 and len({entry.at for entry in found}) == 1:
            raise ValueError(f"{full!r} fired {len(found)} times in one pass; a hook point fires once")
        if len(found) > 1:
            moments = [entry.at for entry in found]
            raise ValueError(
                f"{full!r} was recorded at {len(found)} moments; choose one by cache.at(frame=, step=, "
                f"role=, branch=): {_some(moments)}"
            )
        return found[0].value

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(entry.name for entry in self.entries))

    def __len__(self) -> int:
        return len({entry.name for entry in self.entries})

    def __contains__(self, name: object) -> bool:
        return any(entry.name == name for entry in self.entries)

    def __repr__(self) -> str:
        return f"Cache of {len(self)} names at {len(self.moments)} moments"

    def _full_name(self, name: Any) -> str:
        if isinstance(name, str):
            return f"hook_{name}" if name not in self and f"hook_{name}" in self else name
        activation, layer = name[:2]
        group = name[2] if len(name) > 2 else None
        layers = self._layers(activation, group)
        layer = max(layers, default=0) + 1 + layer if layer < 0 else layer
        if layer not in layers:
            raise KeyError(f"no layer {layer} gave {activation!r}; there are {sorted(self)}")
        if len(layers[layer]) > 1:
            group = layers[layer][0].split(".")[0]
            raise ValueError(
                f"{name!r} may be {' or '.join(layers[layer])}: say which, as in "
                f"{(activation, layer, group)!r}"
            )
        return layers[layer][0]

    def _layers(self, activation: str, group: str | None) -> dict[int, list[str]]:
        """The names that an activation's short form may mean, by layer."""
        form = re.compile(rf"(?:.*\.)?blocks\.(\d+)\.(?:.*\.)?hook_{re.escape(activation)}")
        layers: dict[int, list[str]] = {}
        for name in self:
            match = form.fullmatch(name)
            if match and (group is None or group in name.split(".")):
                layers.setdefault(int(match[1]), []).append(name)
        return layers


@contextmanager
def record(model: Any, names_filter: NamesFilter = None) -> Iterator[Cache]:
    """A cache that fills with copies of what the matching hook points of the model give, while in the `with`.

    Its `on_pass` is the sampler's callback. The model's output is bit for bit what it is without.
    ValueError for a filter that matches nothing, SilentHookError as by Trace.
    """
    cache = Cache()
    points = model.hook_dict

    def keep(at: Any, name: str, value: Tensor) -> None:
        cache.entries.append(Entry(at, name, value.clone()))

    with Trace(points, _names(points, names_filter), keep) as trace:
        cache._announce = trace.on_pass
        try:
            yield cache
        finally:
            cache._announce = _nobody_records


def run_with_cache(
    model: Any, x: Tensor, sigma: Tensor, context: Any, names_filter: NamesFilter = None
) -> tuple[Tensor, Cache]:
    """The velocity of one denoising pass, and what the matching hook points gave in it."""
    with record(model, names_filter) as cache, torch.no_grad():
        return model.denoise(x, sigma, context), cache


def _names(points: Mapping[str, Any], names_filter: NamesFilter) -> list[str]:
    if names_filter is None:
        return list(points)
    if not callable(names_filter):
        return matching(points, names_filter)
    chosen = [name for name in points if names_filter(name)]
    if not chosen:
        raise ValueError(f"names_filter chose none of the hook points {list(points)}")
    return chosen


def _is_at(at: Any, moment: dict[str, Any]) -> bool:
    missing = object()
    return all(getattr(at, name, missing) == value for name, value in moment.items())


def _some(moments: list[Any]) -> str:
    shown = ", ".join(str(moment) for moment in moments[:4])
    return shown + (f" and {len(moments) - 4} more" if len(moments) > 4 else "")


def _nobody_records(_at: Any) -> None:
    raise ValueError("this cache is not being recorded; announce passes inside `with record(model) as cache`")
