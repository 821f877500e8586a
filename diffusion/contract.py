"""The contract of a model: what every model offers, and what it may say besides.

    declared = traits(model)                        # read once; no attribute is guessed
    declared.null_condition, declared.latent, declared.at_steps

A model offers the six members of CausalDiffuser. Everything else that is read of a model is a trait.
"""

import difflib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from framelens.diffusion.geometry import Geometry as Geometry
from framelens.diffusion.layers import LayerStack
from framelens.diffusion.schedule import Sampling
from framelens.diffusion.source import Source

Context = Any
"""What a model remembers of finished frames: a value, passed in and returned, never kept on the module."""
Takes = Literal["actions", "labels", "text"]
PROMISES = ("geometry", "start", "encode", "denoise", "hook_dict", "attn_dict")


def lacking(model: object) -> list[str]:
    """Those of the six members that the model has not; none of them is read, for some are made each time."""
    places = [getattr(model, "__dict__", {}), *map(vars, type(model).__mro__)]
    places += [model._modules] if isinstance(model, nn.Module) else []
    return [name for name in PROMISES if not any(name in names for names in places)]


class _WithoutReading(type(Protocol)):
    """isinstance by `lacking`. Python 3.11 would read every property, and take its errors for a no."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return not lacking(instance)


@runtime_checkable
class CausalDiffuser(Protocol, metaclass=_WithoutReading):
    """What a sampler, a probe and a benchmark ask of any model; x is [b f c h w], f frames per chunk."""

    @property
    def geometry(self) -> Geometry: ...

    @property
    def hook_dict(self) -> Mapping[str, nn.Module]: ...

    @property
    def attn_dict(self) -> Mapping[str, Any]: ...

    def start(self, batch: int, cond: Tensor | None = None) -> Context:
        """A context in which nothing has been seen yet; cond holds the conditions of the whole clip."""
        ...

    def encode(self, x: Tensor, context: Context) -> Context:
        """The context with these finished frames taken into memory; once per chunk."""
        ...

    def denoise(self, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        """The velocity of the current frames at noise level sigma [b]."""
        ...


def _trait(default: Any, kinds: tuple[type, ...], expected: str, meaning: str, shown: str = "") -> Any:
    """A trait: default, types of a value and how to call them, one sentence, how the default is shown ("-":
    the guide does not list it). A default of `dict` is an empty one."""
    how: dict[str, Any] = {"default_factory": dict} if default is dict else {"default": default}
    return field(metadata=dict(kinds=kinds, expected=expected, meaning=meaning, shown=shown), **how)  # noqa: C408


_METHOD: tuple[Any, str] = ((Callable,), "a method")
_FLAG, _NAMES, _DICT = ((bool,), "True or False"), ((tuple, list), "a tuple of names"), ((Mapping,), "a dict")


@dataclass(frozen=True)
class Traits:
    """Everything that a model may say besides the contract; what it does not say has the default."""

    # fmt: off
    takes: Takes | None = _trait(None, (str,), "None, 'actions', 'labels' or 'text'",
        'what `cond` is: `"actions"` [b f], `"labels"` [b], `"text"` embeddings [b t w]',
        "as `null_condition` tells")
    null_condition: int | float | Tensor | None = _trait(None, (Real, Tensor), "a number or a tensor",
        "no condition: a number, or a tensor for each clip; probes use it where clips have none, and "
        "`--guidance` where no negative prompt is given (a prompt of zeros does not count)")
    latent: bool = _trait(False, *_FLAG,
        "x are latents; give `--videos` a file that `make latents` wrote, or probe its own samples")
    sampling: Sampling | None = _trait(None, (Sampling,), "a Sampling (diffusion.schedule)",
        "how it is meant to be sampled, `Sampling(steps, shift, renoise, levels)`; `levels` where "
        "no shift gives them, 1 first, without 0")
    density: Mapping[str, float] = _trait(dict, *_DICT,
        "where training put its noise levels: values of `TrainingDensity` by name")
    metadata: Mapping[str, Any] = _trait(dict, *_DICT,
        "`videos` and `training.recipe.frames`: which clips it knows and how long they are; else its own "
        "samples are probed")
    describe: Callable[[], dict[str, Any]] | None = _trait(None, *_METHOD,
        "`describe()` gives plain values; `conditions`, or `text_tokens` and `text_width`, if it has no null")
    config: Any = _trait(None, (object,), "a configuration",
        "an object with the sizes by which cost is counted (`models/cost/shape.py`)")
    device: torch.device | None = _trait(None, (torch.device,), "a torch.device",
        "where passes begin", "that of its first weight")
    teacher_forced: Callable[..., Tensor] | None = _trait(None, *_METHOD,
        "`teacher_forced(clean, noisy, sigma, cond)` gives the velocity of every frame in one masked pass")
    bidirectional: Callable[..., Tensor] | None = _trait(None, *_METHOD,
        "`bidirectional(x, sigma, cond)` gives the velocity of a whole clip whose frames all see each other, "
        "of a network that was trained so")
    at_steps: Callable[[Tensor, Context], Iterator[Context]] | None = _trait(None, *_METHOD,
        "`at_steps(sigmas, context)` gives the context at each step of a sampler, in which what depends on "
        "the noise level alone is computed beforehand")
    stack: LayerStack | None = _trait(None, (LayerStack,), "a LayerStack (diffusion.layers)",
        "the layers of a denoising pass, to be run by ranges: `enter(x, sigma, context)`, `through(...)`, "
        "`velocity(tokens, modulations)`; networks that are split, or that fetch the past once, need it")
    block_dict: Mapping[str, nn.Module] | None = _trait(None, (Mapping,), "names to modules",
        "blocks that may be passed over, which makes interventions cheaper", "found by name")
    denoising_stack: str = _trait("", (str,), "text",
        "prefix of the names of the layers that run in `denoise`, where not all do")
    start_is_pass: bool = _trait(False, *_FLAG, "`start` runs the network and is announced")
    asks: bool = _trait(False, *_FLAG,
        "`encode` is two passes, `read` then `ask`, which are announced; `start` ends with an `ask`")
    read: Callable[[Tensor, Context], Context] | None = _trait(None, *_METHOD,
        "`read(x, context)` of a model that asks takes the finished frames into memory")
    ask: Callable[[Context, int], Context] | None = _trait(None, *_METHOD,
        "`ask(context, batch)` of a model that asks runs the encoder over the coming frame as noise")
    disturbed: Callable[[Context, float, torch.Generator], Context] | None = _trait(None, *_METHOD,
        "`disturbed(context, strength, generator)` gives the context with noise on its features, "
        "for guidance by context")
    disturbed_is_pass: bool = _trait(False, *_FLAG, "`disturbed` runs the network and is announced")
    keeps_float32: tuple[str, ...] = _trait((), *_NAMES, "parts of parameter names that stay in float32")
    no_split: tuple[str, ...] = _trait((), *_NAMES,
        "classes whose modules stay whole on one device each, where `--device auto` spreads the rest")
    announces: bool = _trait(False, *_FLAG,
        "a model of several branches: its methods take `announce` as well, and call it before each pass", "-")
    source: Source = _trait(Source(), (Source,), "a Source (diffusion.source)",
        "where it came from; loading says it", "-")
    hf_device_map: Mapping[str, Any] | None = _trait(None, *_DICT,
        "the device of each part; accelerate sets it", "-")
    # fmt: on


def traits(model: CausalDiffuser) -> Traits:
    """What the model says of itself, each of the right kind.

    A model around another one (`diffusion.around`) has the traits that this hands on, but for its own.
    ValueError, in one line, for a value of another kind, and for an attribute that is called nearly as a
    trait: it would be overlooked. Reads properties: keep the result rather than to ask again at every step.
    """
    _refuse_near_misses(model)
    declared = dict(getattr(model, "handed_on", {}))
    for name in _ABOUT:
        value = _value(model, name)
        if value is not _NOT_STATED and value is not None:
            declared[name] = _check_kind(model, name, value)
    if declared.get("takes") is None and declared.get("null_condition") is not None:
        declared["takes"] = "text" if isinstance(declared["null_condition"], Tensor) else "actions"
    return Traits(**declared)


def module_of(model: CausalDiffuser) -> nn.Module:
    """The model as the torch module that it is; ValueError for a wrapper, which has no weights."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"a {type(model).__name__} is not a torch.nn.Module and has no weights of its own")
    return model


_NOT_STATED = object()
_ABOUT = {about.name: about.metadata for about in fields(Traits)}
_ALIKE = 0.9
"""Likeness (difflib) from which on a name counts as a misspelt trait."""


def _value(model: object, name: str) -> Any:
    """The model's own attribute; an error inside a property is its own, not a missing attribute."""
    member = next((vars(kind)[name] for kind in type(model).__mro__ if name in vars(kind)), None)
    if isinstance(member, property) and member.fget is not None:
        try:
            return member.fget(model)
        except AttributeError as error:  # torch would say that the property itself is missing
            raise ValueError(f"{_describe_owner(model)} {name} raises: {error}") from error
    return getattr(model, name, _NOT_STATED)


def _check_kind(model: object, name: str, value: Any) -> Any:
    kinds, expected = _ABOUT[name]["kinds"], _ABOUT[name]["expected"]
    if name == "takes" and (not isinstance(value, str) or value not in get_args(Takes)):
        raise ValueError(f"{_describe_owner(model)} takes is {value!r}, expected {expected}")
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"{_describe_owner(model)} {name} is a {type(value).__name__}, expected {expected}")
    return value


def _refuse_near_misses(model: object) -> None:
    for name in _own_names(model):
        meant = _near(name)
        # A plural is another noun, unless its value could be the trait's.
        if meant and (name != f"{meant}s" or isinstance(getattr(model, name), _ABOUT[meant]["kinds"])):
            raise ValueError(f"{_describe_owner(model)} {name} is never read: call it {meant} or otherwise")


def _own_names(model: object) -> Iterator[str]:
    """Public attributes of the instance and of its classes, but for those of torch and its libraries."""
    theirs = ("torch", "transformer_lens", "builtins", "typing")
    for kind in type(model).__mro__:
        if kind.__module__.partition(".")[0] not in theirs:
            yield from (name for name in vars(kind) if not name.startswith("_"))
    yield from (name for name in getattr(model, "__dict__", {}) if not name.startswith("_"))
    if isinstance(model, nn.Module):
        yield from model._buffers


@functools.cache
def _near(name: str) -> str | None:
    """The trait that a name nearly is; None for the names of traits and for others."""
    is_known = name in _ABOUT or name in PROMISES
    found = [] if is_known else difflib.get_close_matches(name, _ABOUT, 1, _ALIKE)
    return found[0] if found else None


def _describe_owner(model: object) -> str:
    return f"a model ({type(model).__name__}) whose"
