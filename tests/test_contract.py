"""The contract: what a model says is read in one place, and a misspelt or wrongly typed word is refused."""

import ast
import re
import time
from pathlib import Path

import pytest
import tiny
import torch
import twins
from torch import nn

from framelens import models
from framelens.diffusion.contract import PROMISES, CausalDiffuser, Traits, lacking, module_of, traits
from framelens.diffusion.loss import flow_matching_loss
from framelens.diffusion.schedule import Sampling
from framelens.diffusion.source import Source
from framelens.models import adapter_template, scd
from framelens.models.loading import guide
from framelens.probes.check.examine import examine, failures

ROOT = Path(__file__).parents[1]
MODELS = ("model", "network")
TRAITS = [*Traits.__dataclass_fields__]
VALUES = {
    "takes": "labels",
    "null_condition": 3,
    "latent": True,
    "sampling": Sampling(4),
    "density": {"shift": 2.0},
    "metadata": {"videos": "tiles"},
    "config": object(),
    "device": torch.device("cpu"),
    "stack": tiny.model(),
    "block_dict": {},
    "denoising_stack": "decoder.",
    "keeps_float32": ("norm",),
    "no_split": ("Block",),
    "source": Source(sha256="1"),
    "hf_device_map": {},
} | dict.fromkeys(("start_is_pass", "asks", "disturbed_is_pass", "announces"), True)


def method(*_):
    raise AssertionError("a trait is read, not called")


def adapted(**said):
    """The template's model, of a class of its own that says these things."""
    model = adapter_template.load()
    model.__class__ = type("Mine", (type(model),), said)
    vars(model).pop("metadata")
    return model


# What a model says


def test_a_model_that_says_nothing_has_the_defaults():
    said = vars(traits(tiny.model()))
    theirs = {"config", "describe", "teacher_forced", "at_steps", "stack", "device"}
    assert {name: said[name] for name in said.keys() - theirs} == {
        name: value for name, value in vars(Traits()).items() if name not in theirs
    }


@pytest.mark.parametrize("name", TRAITS)
def test_every_trait_that_a_model_says_is_read(name):
    value = VALUES.get(name, method)
    model = adapted(**{name: staticmethod(value) if value is method else value})
    assert vars(traits(model))[name] is value


def test_takes_is_told_by_the_null_condition_where_it_is_not_said():
    assert traits(adapted(takes=None, null_condition=0)).takes == "actions"
    assert traits(adapted(takes=None, null_condition=torch.zeros(2, 3))).takes == "text"
    assert traits(adapted(takes="labels", null_condition=0)).takes == "labels"
    assert traits(adapted(takes=None, null_condition=None)).takes is None


def test_a_buffer_is_a_trait_too():
    model = tiny.model()
    model.register_buffer("density", torch.zeros(2))
    with pytest.raises(ValueError, match="density is a Tensor, expected a dict"):
        traits(model)
    misspelt = tiny.model()
    misspelt.register_buffer("null_conditon", torch.zeros(2))
    with pytest.raises(ValueError, match="null_conditon .* null_condition"):
        traits(misspelt)


# What is refused


@pytest.mark.parametrize("name", TRAITS)
def test_a_value_of_another_kind_is_refused_by_name(name):
    if name == "config":
        pytest.skip("a configuration may be anything")
    wrong = 3 if name != "null_condition" else "none"
    with pytest.raises(ValueError, match=rf"\(Mine\) whose {name} is ") as error:
        traits(adapted(**{name: wrong}))
    assert "expected" in str(error.value) and "\n" not in str(error.value)


def test_a_name_for_a_tuple_of_names_is_refused():
    with pytest.raises(ValueError, match="keeps_float32 is a str, expected a tuple"):
        traits(adapted(keeps_float32="norm"))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("null_conditon", "null_condition"),
        ("nullcondition", "null_condition"),
        ("denoising_stacks", "denoising_stack"),
        ("start_is_a_pass", "start_is_pass"),
        ("latents", "latent"),
        ("keep_float32", "keeps_float32"),
        ("at_step", "at_steps"),
    ],
)
@pytest.mark.parametrize("place", ["class", "instance"])
def test_a_misspelt_trait_is_refused_with_the_right_name(written, meant, place):
    value = VALUES.get(meant, method)
    model = tiny.said(**({written: value} if place == "class" else {}))
    if place == "instance":
        vars(model)[written] = value
    with pytest.raises(ValueError, match=rf"whose {written} .* {meant}\b") as error:
        traits(model)
    assert "\n" not in str(error.value)


def test_every_misspelling_of_a_long_trait_by_a_missing_letter_is_refused():
    for name in (name for name in TRAITS if len(name) > 8):
        for gap in range(1, len(name)):
            short = name[:gap] + name[gap + 1 :]
            if not short.startswith("_"):
                with pytest.raises(ValueError, match=re.escape(name)):
                    traits(tiny.said(**{short: VALUES.get(name, method)}))


def test_ordinary_names_are_left_alone():
    names = "latents devices mask task head conditions sampler describe_me text blocks reads block"
    traits(adapted(**dict.fromkeys(names.split(), [1])))


def test_an_error_inside_a_property_is_not_taken_for_a_trait_that_is_missing():
    model = adapted(null_condition=property(lambda self: self.net.nothing))
    with pytest.raises(ValueError, match="null_condition raises: 'Net' object has no attribute 'nothing'"):
        traits(model)


@pytest.mark.parametrize("line", ["null_conditon = 5", "latent = 'yes'"])
def test_loading_an_adapter_and_checking_it_refuse_both(tmp_path, line):
    name = line.split()[0]
    file = tmp_path / "mine.py"
    file.write_text(
        "from framelens.models.adapter_template import Adapter, Net\n\n\n"
        f"class Mine(Adapter):\n    {line}\n\n\ndef load():\n    return Mine(Net())\n"
    )
    with pytest.raises(ValueError, match=rf"mine.py:load gave a model \(Mine\) whose {name}") as error:
        models.load(f"{file}:load")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=name):
        next(examine(adapted(**{name: 5})))


# Our own networks keep it


@pytest.mark.parametrize("name", [*models.names(), *twins.FAMILIES, "template", "scd with noise"])
def test_our_networks_and_every_familys_twin_say_nothing_wrong(tmp_path, name):
    if name in models.names():
        model = models.load(name)
    elif name in twins.FAMILIES:
        path, said = twins.twin(name, tmp_path)
        model = models.load(path, **said)
    elif name == "template":
        model = adapter_template.load()
    else:
        model = scd.build(scd.config("tiny", fusion="residual", query="noise", start_token=False, head=1))
    assert isinstance(model, CausalDiffuser) and isinstance(module_of(model), nn.Module)
    said = traits(model)
    assert isinstance(said, Traits) and (said.ask is not None) == (said.read is not None)


# isinstance


def test_a_model_is_told_by_its_six_members_and_none_of_them_is_read():
    class Unread:
        def __init__(self):
            self.geometry = None

        hook_dict = attn_dict = property(lambda self: 1 / 0)
        start = encode = denoise = method

    assert isinstance(Unread(), CausalDiffuser)
    for name in PROMISES[1:]:
        part = type("Part", (), {other: method for other in PROMISES if other != name})()
        assert lacking(part) == [name] and not isinstance(part, CausalDiffuser)


def test_looking_whether_a_model_is_one_costs_less_than_reading_one_of_its_members():
    model = tiny.model(layers=12)

    def seconds(run):
        began = time.perf_counter()
        for _ in range(300):
            run()
        return time.perf_counter() - began

    looking = min(seconds(lambda: isinstance(model, CausalDiffuser)) for _ in range(3))
    assert looking < min(seconds(lambda: model.attn_dict) for _ in range(3))


def test_a_wrapper_has_no_weights():
    with pytest.raises(ValueError, match="Guided"):
        module_of(tiny_wrapper())


def tiny_wrapper():
    from framelens.diffusion.guidance import guide

    return guide(tiny.model(conditions=2), 2.0)


# The guide


def test_the_guide_has_the_table_of_traits():
    text = guide.README.read_text()
    assert guide.traits_table() in text, "python -m framelens.models.loading.guide writes it again"
    assert guide.with_table(text) == text


def test_the_table_names_every_trait_that_is_an_authors_to_give():
    rows = re.findall(r"^\| `(\w+)` \|", guide.traits_table(), re.MULTILINE)
    assert rows == [name for name in TRAITS if name not in ("announces", "source", "hf_device_map")]


def test_the_template_keeps_the_contract():
    assert failures(adapter_template.load(), only=["velocity", "conditions", "parallel"]) == []


# The law: a model is read nowhere else


def files():
    """Files that know models. Instruments know any torch module; encoders are networks of another kind."""
    for room in ("benchmarks", "diffusion", "models", "probes", "training"):
        for path in sorted((ROOT / room).rglob("*.py")):
            if "encoders" not in path.parts and path != ROOT / "diffusion" / "contract.py":
                yield path


def guesses(tree):
    """Lines that ask by name for an attribute of a model, or for a trait of anything."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="getattr" | "hasattr"), args=[asked, name, *_]):
                is_trait = isinstance(name, ast.Constant) and name.value in (*TRAITS, *PROMISES)
                if is_trait or ast.unparse(asked).rpartition(".")[2] in MODELS:
                    yield node.lineno


def untyped(tree):
    """Lines with a parameter or a field that is a model and could be anything."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            found = [(one.arg, one.annotation) for one in given]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found = [(node.target.id, node.annotation)]
        else:
            continue
        for name, kind in found:
            if name in (*MODELS, "networks") and (kind is None or re.search(r"\bAny\b", ast.unparse(kind))):
                yield node.lineno


@pytest.mark.parametrize("law", [guesses, untyped])
def test_no_file_guesses_what_a_model_says(law):
    broken = [
        f"{path.relative_to(ROOT)}:{line}" for path in files() for line in law(ast.parse(path.read_text()))
    ]
    assert not broken


@pytest.mark.parametrize(
    ("law", "source"),
    [
        (guesses, "getattr(model, 'anything')"),
        (guesses, "getattr(self.model, name, None)"),
        (guesses, "hasattr(specimen.network, name)"),
        (guesses, "getattr(thing, 'null_condition', None)"),
        (untyped, "def f(model): pass"),
        (untyped, "def f(*, network: Any): pass"),
        (untyped, "def f(model: 'Any | None' = None): pass"),
        (untyped, "class A:\n    model: Any"),
        (untyped, "class A:\n    networks: Mapping[str, Any]"),
    ],
)
def test_the_laws_notice_every_way_to_break_them(law, source):
    assert [*law(ast.parse(source))]


def test_the_laws_let_a_typed_model_pass():
    tree = ast.parse("def f(model: CausalDiffuser, config: Any): return getattr(config, 'layers')")
    assert not [*guesses(tree), *untyped(tree)]


def test_what_cannot_be_trained_or_saved_is_refused(tmp_path):
    clip, model = torch.zeros(1, 2, 3, 8, 8), tiny.said()
    with pytest.raises(ValueError, match="teacher_forced"):
        flow_matching_loss(model, clip, clip, torch.zeros(1, 2))
    with pytest.raises(ValueError, match="describe"):
        models.save(model, tmp_path / "model.safetensors")
    assert not [*tmp_path.iterdir()]
