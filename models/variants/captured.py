"""A model whose denoising steps are replayed from CUDA graphs, or compiled: the same contract, faster.

    fast = capture(model, "graph")               # or "compile"
    video = rollout(fast, noise, sigmas, cond)

Denoising steps of one frame have fixed shapes. A separated model's decoder has the same shapes in every
frame: its graph is recorded once per branch and reads the context from buffers that are filled once per
frame. A dense model's history grows: its graph is recorded again for every frame, at the second step.

Steps that a sampler prepared (`at_steps`, as `rollout` does) are captured. All other steps, `start` and
`encode` run without capture.
"""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from framelens.diffusion.around import Around
from framelens.diffusion.contract import CausalDiffuser, module_of
from framelens.models.dense import Dense
from framelens.models.parts.cache import KVCache, KVStorage
from framelens.models.parts.contexts import SCDContext
from framelens.models.variants.no_points import NoPoints

MODES = ("graph", "compile")
BRANCHES = 2
"""Graphs to keep for one shape of x: guidance has two contexts at a time."""


def capture(model: CausalDiffuser, mode: str) -> "Captured":
    """The model with captured denoising steps; ValueError if that mode does not fit the model.

    Its results equal the model's up to the rounding of its dtype. It refuses instruments, because it would
    ignore hooks that are attached later.
    """
    if mode not in MODES:
        raise ValueError(f"no mode is called {mode!r}; there are {', '.join(MODES)}")
    device = next(module_of(model).parameters()).device
    if mode == "graph" and device.type != "cuda":
        raise ValueError(f"mode 'graph' replays CUDA graphs, but the model is on {device}: run it uncaptured")
    if mode == "compile" and isinstance(model, Dense):
        raise ValueError(
            "mode 'compile' needs fixed shapes, but a dense model's history grows by every frame: use 'graph'"
        )
    return Captured(model, mode)


class Captured(Around):
    """A model with captured denoising steps; satisfies the contract of a CausalDiffuser."""

    hides = Around.hides | {"block_dict"}

    def __init__(self, model: CausalDiffuser, mode: str):
        self.model, self.mode = model, mode
        self._steps: list[_CapturedStep] = []
        self._compiled = torch.compile(_velocity, dynamic=False) if mode == "compile" else None
        # One memory pool for all graphs: they never run together, and results are copied out immediately.
        self._pool = torch.cuda.graph_pool_handle() if torch.cuda.is_available() else None

    @property
    def hook_dict(self) -> NoPoints:
        return NoPoints(f"a model captured by mode {self.mode!r} ignores hooks: instrument the plain model")

    attn_dict = hook_dict

    def denoise(self, x: Tensor, sigma: Tensor, context: Any) -> Tensor:
        """The velocity at noise level sigma; a prepared step runs as a graph or compiled."""
        if context.modulations is None:
            return self.model.denoise(x, sigma, context)
        if self._compiled is None:
            return self._step_for(x, context)(x, context)
        if isinstance(context, SCDContext) and context.prefix is not None:
            cache = context.prefix  # room for the frame's own keys, so that no shape changes later
            cache.storage.reserve(cache.storage.keys[0], 2 * cache.tokens)
        x = x.clone(memory_format=torch.contiguous_format)  # a frame of a longer clip has other strides
        return self._compiled(self.model, x, _step_inputs(context))

    def _step_for(self, x: Tensor, context: Any) -> "_CapturedStep":
        """A step for this context: the one that holds it, the least recently used refilled, or a new one."""
        alike = [one for one in self._steps if one.x.shape == x.shape and one.x.dtype == x.dtype]
        found = next((one for one in alike if one.holds(context)), None)
        if found is None and len(alike) >= BRANCHES:
            found = alike[0] if alike[0].fill(context) else None
            if found is None:
                self._steps.remove(alike[0])
        if found is None:
            found = _CapturedStep(self.model, x, context, self._pool)
        else:
            self._steps.remove(found)
        self._steps.append(found)  # the most recently used last
        return found


class _CapturedStep:
    """One branch's denoising step: runs normally once, is recorded at call two, then replayed."""

    def __init__(self, model: CausalDiffuser, x: Tensor, context: Any, pool: Any):
        self.model, self.pool, self.replay, self.velocity = model, pool, None, None
        with torch.inference_mode(False):  # such buffers may be written in any mode
            self.x, self.context = x.clone(), _copy_context(context)
        self.of = context

    def holds(self, context: Any) -> bool:
        """Whether the buffers hold that context, at any step."""
        return _past(self.of) is _past(context)

    def fill(self, context: Any) -> bool:
        """Fills the buffers with another frame's context; False if its shapes differ."""
        if not isinstance(context, SCDContext):
            return False
        theirs, ours = _tensors(_step_inputs(context)), _tensors(self.context)
        if [tensor.shape for tensor in theirs] != [tensor.shape for tensor in ours]:
            return False
        _fill(ours, theirs)
        self.of = context
        return True

    def __call__(self, x: Tensor, context: Any) -> Tensor:
        self.x.copy_(x)
        _fill(_tensors(self.context.modulations), _tensors(context.modulations))
        if self.velocity is None:
            self.velocity = _velocity(self.model, self.x, self.context)
            return self.velocity
        if self.replay is None:
            step = partial(_velocity, self.model, self.x, self.context)
            self.replay, self.velocity = _record(step, self.pool)
        self.replay()
        return self.velocity.clone()


def _record(run: Callable[[], Tensor], pool: Any) -> tuple[Callable[[], None], Tensor]:
    """A CUDA graph of `run`: the call that replays it, and the tensor that receives its result."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        result = run()
    return graph.replay, result


def _velocity(model: CausalDiffuser, x: Tensor, context: Any) -> Tensor:
    """One prepared step; its noise level is in the context's modulations."""
    return model.denoise(x, x.new_zeros(len(x)), context)


def _past(context: Any) -> Any:
    """The part of a context that is a new object after each frame."""
    return context.features if isinstance(context, SCDContext) else context.cache


def _step_inputs(context: Any) -> Any:
    """The part of the context that a prepared step reads, with frame number 0."""
    if not isinstance(context, SCDContext):
        return context
    return replace(context, frame=0, cache=KVCache(KVStorage(0)), cond=None, encoder_text=None, last=None)


def _copy_context(context: Any) -> Any:
    """The context with its own buffers for everything that a prepared step reads.

    The history of a dense model is not copied: its step serves one frame only.
    """
    if isinstance(context, SCDContext):
        return _map(_step_inputs(context), torch.Tensor.clone)
    return replace(context, modulations=_map(context.modulations, torch.Tensor.clone))


def _map(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with `function` applied to every tensor; caches get room for twice the tokens."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, KVCache):
        return _with_room(value)
    if isinstance(value, list | tuple):
        return type(value)(_map(item, function) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _map(getattr(value, f.name), function) for f in fields(value)})
    return value


def _with_room(cache: KVCache) -> KVCache:
    own = KVStorage(cache.storage.layers, cache.tokens)
    for new, old in ((own.keys, cache.storage.keys), (own.values, cache.storage.values)):
        new += [torch.cat([tensor[:, :, : cache.tokens]] * 2, dim=2) for tensor in old]
    return KVCache(own, cache.tokens)


def _tensors(value: Any) -> list[Tensor]:
    """The tensors of a structure, in order; of a cache only the tokens that it holds."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, KVCache):
        held = value.storage.keys + value.storage.values
        return [tensor[:, :, : value.tokens] for tensor in held]
    if is_dataclass(value):
        value = [getattr(value, f.name) for f in fields(value)]
    return [tensor for item in value for tensor in _tensors(item)] if isinstance(value, list | tuple) else []


def _fill(ours: list[Tensor], theirs: list[Tensor]) -> None:
    """Copies `theirs` into `ours`, all tensors in one call."""
    torch._foreach_copy_(ours, theirs)  # pyright: ignore[reportPrivateImportUsage]
