"""Activations cached as in TransformerLens, with the moment of each value, for any model with a hook_dict.

    velocity, cache = run_with_cache(model, x, sigma, context)          # one denoising pass
    cache["blocks.3.hook_resid_post"], cache["resid_post", 3], cache.stack_activation("resid_post")

    with record(model, "*.hook_resid_post") as cache:                   # a whole rollout
        rollout(model, noise, sigmas, on_pass=cache.on_pass)
    cache.at(frame=4, step=0, role="denoise")["resid_post", -1]

Everything recorded stays in memory: filter names, or use Trace, which passes values to a function instead.
Without a filter, maps of all queries by all keys are left out; `record(model, "*.hook_pattern")` keeps them.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import index
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from framelens.hooks._instrument import match_names
from framelens.hooks.trace import Trace

NamesFilter = str | Iterable[str] | Callable[[str], bool] | None
"""Names or globs, or a function of a name; None for every point but those of QUADRATIC."""

QUADRATIC = ("hook_pattern", "hook_attn_scores")
"""Points whose values have an entry for each query and each key; recorded only where a filter names them."""


@dataclass(frozen=True)
class Entry:
    """A value at a place, at a moment; the moment is None where no pass was announced."""

    at: Any
    name: str
    value: Tensor


class Cache(Mapping[str, Tensor]):
    """Recorded values by hook name; a name gives its tensor where that was recorded at one moment only.

    Names of the networks in `models`, with b clips, n tokens, d width, h heads of width dh, k keys:

        hook_embed                                                       [b n d]    tokens after the embedding
        blocks.{l}.hook_resid_pre, .hook_resid_mid, .hook_resid_post     [b n d]    the residual stream
        blocks.{l}.hook_attn_out, .hook_mlp_out                          [b n d]    what is added to it
        blocks.{l}.attn.hook_q, .hook_k, .hook_v, .hook_z                [b n h dh]
        blocks.{l}.attn.hook_rot_q, .hook_rot_k                          [b n h dh] after the rotation
        blocks.{l}.attn.hook_pattern                                     [b h n k]  where a filter names it
        blocks.{l}.cross.hook_cross_out                                  [b n d]    attention to text

    Models of two stacks put `encoder.` or `decoder.` before `blocks`. `cache["embed"]`,
    `cache["resid_post", 3]` and `cache["q", -1]` are TransformerLens' short forms; a third word chooses where
    several names match (`cache["q", 0, "decoder"]`). `at` chooses one of several moments. `in` says whether a
    name or a short form was recorded, at one moment or more.
    """

    def __init__(self, entries: Iterable[Entry] = ()):
        self.entries = list(entries)

    @property
    def moments(self) -> list[Any]:
        """The passes in which something was recorded, in their order."""
        return list(dict.fromkeys(entry.at for entry in self.entries))

    def at(self, **moment: Any) -> "Cache":
        """The entries of these moments: frame=, step=, role=, branch=; ValueError where there are none."""
        chosen = [entry for entry in self.entries if _is_at(entry.at, moment)]
        if not chosen:
            raise ValueError(f"nothing was recorded at {moment}; there are {_list_some(self.moments)}")
        return Cache(chosen)

    def to(self, device: str | torch.device) -> "Cache":
        """The same values on that device."""
        return Cache(Entry(entry.at, entry.name, entry.value.to(device)) for entry in self.entries)

    def stack_activation(self, activation: str, group: str | None = None) -> Tensor:
        """The values of every recorded layer, as one tensor [layer ...]: "resid_post", "attn_out", "z"."""
        layers = sorted(self._layers(activation, group))
        if not layers:
            raise KeyError(f"no layer gave {activation!r}; there are {sorted(self)}")
        values = [self[activation, layer, group] for layer in layers]
        return torch.stack([value.to(values[0].device) for value in values])

    def __getitem__(self, name: Any) -> Tensor:
        names = self._full_names(name)
        if not names:
            raise KeyError(f"{name!r} was not recorded; there are {sorted(self)}")
        if len(names) > 1:
            example = (name[0], name[1], names[0].split(".")[0])
            raise ValueError(f"{name!r} may be {' or '.join(names)}: say which, as in {example!r}")
        found = [entry for entry in self.entries if entry.name == names[0]]
        if len(found) > 1 and len({entry.at for entry in found}) == 1:
            raise ValueError(f"{names[0]!r} fired {len(found)} times in one pass; a hook point fires once")
        if len(found) > 1:
            moments = [entry.at for entry in found]
            raise ValueError(
                f"{names[0]!r} was recorded at {len(found)} moments; choose one by cache.at(frame=, step=, "
                f"role=, branch=): {_list_some(moments)}"
            )
        return found[0].value

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(entry.name for entry in self.entries))

    def __len__(self) -> int:
        return len({entry.name for entry in self.entries})

    def __contains__(self, name: object) -> bool:
        return bool(self._full_names(name))

    def __repr__(self) -> str:
        return f"Cache of {len(self)} names at {len(self.moments)} moments"

    def _full_names(self, name: object) -> list[str]:
        """The recorded names that a name or a short form may mean."""
        match name:
            case str():
                recorded = set(self)
                return [full for full in (name, f"hook_{name}") if full in recorded][:1]
            case (str(activation), SupportsIndex() as number, *group) if group in ([], [None]) or (
                len(group) == 1 and isinstance(group[0], str)
            ):
                layers, layer = self._layers(activation, *group), index(number)
                return layers.get(max(layers, default=0) + 1 + layer if layer < 0 else layer, [])
        return []

    def _layers(self, activation: str, group: str | None = None) -> dict[int, list[str]]:
        """The names that an activation's short form may mean, by layer."""
        form = re.compile(rf"(?:.*\.)?blocks\.(\d+)\.(?:.*\.)?hook_{re.escape(activation)}")
        layers: dict[int, list[str]] = {}
        for name in self:
            match = form.fullmatch(name)
            if match and (group is None or group in name.split(".")):
                layers.setdefault(int(match[1]), []).append(name)
        return layers


class Recording(Cache):
    """A Cache that fills while it is attached by `with`; made by `record`."""

    def __init__(self, points: Mapping[str, Any], names_filter: NamesFilter):
        super().__init__()
        self._trace = Trace(points, select_names(points, names_filter), self._keep)
        self._is_attached = False

    def on_pass(self, at: Any) -> None:
        """Take note that the forward pass `at` is about to run."""
        if not self._is_attached:
            raise ValueError(
                "this cache is not being recorded; announce passes inside `with record(model) as cache`"
            )
        self._trace.on_pass(at)

    def __enter__(self) -> "Recording":
        self._trace.__enter__()
        self._is_attached = True
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        self._is_attached = False
        return self._trace.__exit__(kind, error, traceback)

    def _keep(self, at: Any, name: str, value: Tensor) -> None:
        self.entries.append(Entry(at, name, value.clone()))


def record(model: Any, names_filter: NamesFilter = None) -> Recording:
    """A cache that fills with copies of the matching hook points' values while it is attached by `with`.

    Its `on_pass` is the sampler's callback. The copies have no gradients. The model's output is bit for bit
    the same. ValueError for a filter that matches nothing; SilentHookError as in Trace.

    >>> import framelens
    >>> import torch
    >>> model = framelens.load("dense-tiles")
    >>> context = model.start(1, torch.zeros(1, 2, dtype=torch.long))
    >>> x, sigma = torch.randn(1, 1, 3, 20, 20), torch.tensor([0.9])
    >>> with framelens.record(model, "blocks.*.hook_resid_post") as cache:
    ...     velocity = model.denoise(x, sigma, context)
    >>> cache["resid_post", 11].shape
    torch.Size([1, 25, 128])
    """
    return Recording(model.hook_dict, names_filter)


def run_with_cache(
    model: Any, x: Tensor, sigma: Tensor, context: Any, names_filter: NamesFilter = None
) -> tuple[Tensor, Cache]:
    """The velocity of one denoising pass, and the values of the matching hook points in it.

    Runs under no_grad: neither keeps gradients, unlike in TransformerLens. Use Edit where gradients matter.
    The networks in `models` also have this as a method, `model.run_with_cache(x, sigma, context,
    names_filter=...)`, whose velocity keeps gradients and which takes TransformerLens' other options.

    >>> import framelens
    >>> import torch
    >>> model = framelens.load("dense-tiles")
    >>> context = model.start(1, torch.zeros(1, 2, dtype=torch.long))
    >>> x, sigma = torch.randn(1, 1, 3, 20, 20), torch.tensor([0.9])
    >>> velocity, cache = framelens.run_with_cache(model, x, sigma, context)
    >>> velocity.shape, cache["resid_post", -1].shape
    (torch.Size([1, 1, 3, 20, 20]), torch.Size([1, 25, 128]))
    """
    with record(model, names_filter) as cache, torch.no_grad():
        velocity = model.denoise(x, sigma, context)
    return velocity, Cache(cache.entries)


def select_names(points: Mapping[str, Any], names_filter: NamesFilter) -> list[str]:
    """The names that a filter chooses, in their order; ValueError for a filter without a match."""
    if names_filter is None:
        return [name for name in points if name.rpartition(".")[2] not in QUADRATIC]
    if not callable(names_filter):
        return match_names(points, names_filter)
    chosen = [name for name in points if names_filter(name)]
    if not chosen:
        raise ValueError(f"names_filter chose none of the hook points {list(points)}")
    return chosen


def _is_at(at: Any, moment: dict[str, Any]) -> bool:
    missing = object()
    return all(getattr(at, name, missing) == value for name, value in moment.items())


def _list_some(moments: list[Any]) -> str:
    shown = ", ".join(str(moment) for moment in moments[:4])
    return shown + (f" and {len(moments) - 4} more" if len(moments) > 4 else "")
