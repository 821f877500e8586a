"""`make check`: models of the contract pass, and each check fails on the model that was broken for it."""

import copy
import re
from dataclasses import replace
from pathlib import Path

import by_hand
import pytest
import tiny
import torch
import variants
from carried import Carried
from torch import nn
from torch.nn import functional as F
from variants import Doubled

from framelens import models
from framelens.diffusion.layers import LayerInputs
from framelens.diffusion.source import Source
from framelens.hooks.attention import AttentionPoint
from framelens.models import adapter_template, scd
from framelens.models.adapter_template import LAYERS, Adapter, Attention, Block, Net
from framelens.models.parts.blocks import GuardedHookPoint
from framelens.probes.check.__main__ import main as check_main
from framelens.probes.check.examine import examine, failures

ROOT = Path(__file__).parents[1]
TEMPLATE = "models/adapter_template.py:load"


def separated(fusion="prefix", **changes):
    small = tiny.SHAPE | {"encoder_layers": 2, "decoder_layers": 1, "fusion": fusion}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = scd.build(scd.Config(**{**small, **changes}))
        for weight in network.parameters():
            weight += 0.3 * torch.randn(weight.shape)
    return network.eval().requires_grad_(False)


class Chunked(Adapter):
    """The template's network on two frames at a time."""

    def __init__(self, net):
        super().__init__(net)
        self.geometry = type(self.geometry)(2, *list(vars(self.geometry).values())[1:])

    @property
    def attn_dict(self):
        def key_age(frame, keys):
            own = torch.zeros(2 * TOKENS, dtype=torch.long)
            return torch.cat([torch.arange(frame, 0, -1).repeat_interleave(TOKENS), own])

        return {name: AttentionPoint(point.module, key_age) for name, point in super().attn_dict.items()}

    def encode(self, x, context):
        context = super().encode(x, context)
        return type(context)(context.frame + 1, context.cache, context.actions)

    def enter(self, x, sigma, context):
        now = slice(context.frame, context.frame + 2)
        action = None if context.actions is None else context.actions[:, now]
        levels = sigma[:, None].expand(-1, 2)
        tokens = self.hook_embed(self.net.embed_tokens(x, levels, action, context.frame))
        return LayerInputs(tokens, None, None, context.cache, None)


TOKENS = adapter_template.TOKENS
WHOLE = {
    "actions": lambda: tiny.model(conditions=3),
    "no condition": lambda: tiny.model(),
    "text": lambda: tiny.model(text_tokens=3, text_width=6),
    "a window": lambda: tiny.model(window=1, sink=1),
    "half precision": lambda: tiny.model(conditions=3).bfloat16(),
    "separated": separated,
    "separated, tokens joined, text": lambda: separated("token_concat", text_tokens=3, text_width=6),
    "separated, to be given the first frame": lambda: separated(start_token=False),
    "two frames at a time": lambda: made(Chunked),
}


def made(kind=Adapter):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(Net()).eval().requires_grad_(False)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_models_that_keep_the_contract_pass(name):
    assert [check.line for check in failures(WHOLE[name]())] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", [by_hand.separable, by_hand.entangled, by_hand.late])
def test_layers_that_do_nothing_are_no_wiring_error(kind):
    assert [check.line for check in failures(kind())] == []


def test_what_is_idle_is_named():
    checks = {check.name: check for check in examine(variants.load("an idle layer"), ["edits", "skips"])}
    assert all(check.holds and "blocks.1" in check.found for check in checks.values())
    (frames,) = examine(variants.load("a past that is ignored"), ["frames"])
    assert frames.holds and "ignores" in frames.found


@pytest.mark.slow
def test_labels_are_shown_as_labels():
    model = tiny.model(conditions=3)
    model.source = Source(metadata={"condition": "label"})
    checks = {check.name: check for check in examine(model)}
    assert not [check.line for check in checks.values() if check.holds is False]
    assert "labels" in checks["conditions"].found


@pytest.mark.slow
def test_every_check_says_what_it_found_in_one_line():
    checks = list(examine(tiny.model(conditions=3)))
    assert len({check.name for check in checks}) == len(checks) == 17
    assert [check.name for check in checks if not check.holds] == ["convention"], "it names no clips"
    for check in checks[:-1]:
        assert re.search(r"\d", check.found), check.line
        assert check.name in check.line and check.found in check.line and "\n" not in check.line


# Broken models


class WrongShape(Adapter):
    def denoise(self, x, sigma, context):
        return super().denoise(x, sigma, context)[:, 0]


class NotFinite(Adapter):
    def denoise(self, x, sigma, context):
        return super().denoise(x, sigma, context) / 0


class Raises(Adapter):
    def denoise(self, x, sigma, context):
        return context.nothing


class Unnamed(Adapter):
    @property
    def hook_dict(self):
        return {name: module for name, module in super().hook_dict.items() if "resid_pre" not in name}


class NeverFires(Adapter):
    def __init__(self, net):
        super().__init__(net)
        self.hook_unused = GuardedHookPoint()


class FiresTwice(Adapter):
    def enter(self, x, sigma, context):
        entered = super().enter(x, sigma, context)
        self.hook_embed(x.flatten(2))
        return entered


class CallsTwice(Attention):
    def forward(self, x, past, seen):
        kernel = F.scaled_dot_product_attention
        try:
            F.scaled_dot_product_attention = lambda *parts: (kernel(*parts), kernel(*parts))[1]
            return super().forward(x, past, seen)
        finally:
            F.scaled_dot_product_attention = kernel


class Masked(Attention):
    def forward(self, x, past, seen):
        kernel = F.scaled_dot_product_attention
        try:
            F.scaled_dot_product_attention = lambda q, k, v: kernel(q, k, v, is_causal=True)
            return super().forward(x, past, seen)
        finally:
            F.scaled_dot_product_attention = kernel


class Hears(Adapter):
    def denoise(self, x, sigma, context):
        louder = 1.01 if self.hook_embed._forward_hooks else 1.0
        return louder * super().denoise(x, sigma, context)


class Random(Adapter):
    def denoise(self, x, sigma, context):
        return super().denoise(x + 0.01 * torch.randn_like(x), sigma, context)


class OffPath(Block):
    """Shows its stream to the hook points, and goes on without what they return."""

    def forward(self, x, past, seen):
        for point in (self.hook_resid_pre, self.hook_resid_mid, self.hook_resid_post):
            point(x)
        x = x + self.hook_attn_out(self.attn(self.theirs.norm1(x), past, seen))
        return x + self.hook_mlp_out(self.theirs.mlp(self.theirs.norm2(x)))


class Tuples(Block):
    def forward(self, x, past, seen):
        return super().forward(x, past, seen), None


class Unpacks(Adapter):
    """Blocks that return more than the residual stream."""

    def __init__(self, net):
        super().__init__(net)
        self.blocks = nn.ModuleList(map(Tuples, net.blocks))

    def through(self, tokens, _, rope, history, text, layers=range(LAYERS), seen=None):
        for layer in layers:
            tokens, _ = self.blocks[layer](tokens, history[layer], [] if seen is None else seen)
        return tokens


def aged(change):
    """An adapter whose key ages are so changed."""

    class Aged(Adapter):
        @property
        def attn_dict(self):
            def wrap(age):
                return lambda frame, keys: change(age(frame, keys))

            return {n: AttentionPoint(p.module, wrap(p.key_age)) for n, p in super().attn_dict.items()}

    return Aged


def carried_and_aged(change, layer=0):
    """An adapter that carries its past in the pass, and whose ages are so changed from that layer on."""

    class Aged(Carried):
        @property
        def attn_dict(self):
            def wrong(frame, keys):
                return change(self.key_age(frame, keys))

            points = super().attn_dict
            return {n: replace(p, key_age=wrong) if int(n[7]) >= layer else p for n, p in points.items()}

    return Aged


def swap_frames(ages):
    """The two frames of the past exchanged."""
    return torch.where(ages > 0, 3 - ages, ages)


class ChangesContext(Adapter):
    def start(self, batch, cond=None):
        self.own = super().start(batch, cond)
        return [self.own]

    def encode(self, x, context):
        context[0] = super().encode(x, context[0])
        return context

    def denoise(self, x, sigma, context):
        return super().denoise(x, sigma, context[0])


class Remembers(Adapter):
    """Keeps what it encoded on the module, for all calls to come."""

    def encode(self, x, context):
        self.last = x.mean()
        return super().encode(x, context)

    def denoise(self, x, sigma, context):
        return super().denoise(x + getattr(self, "last", 0.0), sigma, context)


class Forgets(Adapter):
    def encode(self, x, context):
        return type(context)(context.frame + 1, context.cache, context.actions)


class Mixes(Adapter):
    def denoise(self, x, sigma, context):
        return super().denoise(x + x.mean(dim=0, keepdim=True), sigma, context)


class Foresees(Adapter):
    def start(self, batch, cond=None):
        return super().start(batch, cond.flip(1))


class IgnoresActions(Adapter):
    def start(self, batch, cond=None):
        return super().start(batch, None)


class Parallel(Adapter):
    """The pass over a clip as frame by frame, but for what `leaky` adds."""

    leaky = staticmethod(lambda clean: 0.0)

    def teacher_forced(self, clean, noisy, sigma, cond=None):
        context, velocities = self.start(len(clean), cond), []
        for frame in range(clean.shape[1]):
            x = noisy[:, frame : frame + 1] + self.leaky(clean)
            velocities.append(self.denoise(x, sigma[:, frame], context))
            context = self.encode(clean[:, frame : frame + 1], context)
        return torch.cat(velocities, dim=1)


class LeaksInParallel(Parallel):
    leaky = staticmethod(lambda clean: 0.01 * clean.mean(dim=1, keepdim=True))


class PointsElsewhere(Adapter):
    def __init__(self, net):
        super().__init__(net)
        points = super().hook_dict
        self.points = lambda: points

    hook_dict = property(lambda self: self.points())


def with_attention(kind):
    class Changed(Adapter):
        def __init__(self, net):
            super().__init__(net)
            for block in self.blocks:
                block.attn = kind(block.attn.theirs)

    return Changed


class OffPathBlock(Adapter):
    def __init__(self, net):
        super().__init__(net)
        self.blocks[1] = OffPath(net.blocks[1])


# What each broken model fails, and what must be found: words, or the numbers in the order they are given.
BROKEN = [
    (WrongShape, "velocity", r"\(1, 3, 20, 20\).*\(1, 1, 3, 20, 20\)"),
    (NotFinite, "velocity", "inf|nan"),
    (Raises, "velocity", r"AttributeError.*test_check.py:\d+: .*'Past'.*'nothing'"),
    (Unnamed, "names", "blocks.0.hook_resid_pre, blocks.1.hook_resid_pre"),
    (NeverFires, "fires", "'hook_unused'.* 8 "),
    (FiresTwice, "fires", "'hook_embed'.* 12 .* 6 .*'denoise'"),
    (with_attention(CallsTwice), "fires", "'blocks.0.attn'.* 12 .* 6"),
    (with_attention(Masked), "fires", "'blocks.0.attn'.*is_causal"),
    (Hears, "outputs", r"[1-9]\.\de-0[23]$"),
    (Random, "outputs", lambda differ, own: own > 0),
    (OffPathBlock, "edits", "41 .*blocks.1.hook_resid_pre, .*hook_resid_mid"),
    (OffPathBlock, "skips", lambda given, *_: given > 0),
    (Unpacks, "skips", r"ValueError.*test_check.py:\d+: "),
    (aged(lambda ages: ages - 2), "patterns", r"\b25\b"),
    (aged(lambda ages: ages.flip(0)), "key_age", "[12] "),
    (aged(lambda ages: ages + 1), "key_age", "3 .*2 "),
    (aged(lambda ages: (ages - 1).clamp(min=0)), "key_age", r"\b1 "),
    (aged(lambda ages: ages.where(ages != 1, -1)), "key_age", "no frame.* [12] back"),
    (carried_and_aged(swap_frames), "key_age", r"blocks\.0\.attn.*\b[12] "),
    (carried_and_aged(swap_frames, layer=2), "key_age", r"blocks\.2\.attn.*\b[12] "),
    (ChangesContext, "context", lambda *found: max(found) > 1e-3),
    (Remembers, "context", lambda *found: max(found) > 1e-3),
    (Remembers, "frames", lambda earlier, following, own: earlier > 0),
    (Forgets, "frames", lambda earlier, following, own: following == 0),
    (Doubled, "rows", "hook_embed .*2 rows for 1 clip"),
    (Mixes, "rows", lambda changed, apart, own: changed > 0),
    (Foresees, "conditions", lambda effect, earlier, *_: earlier > 0),
    (IgnoresActions, "conditions", lambda effect, *_: effect == 0),
    (LeaksInParallel, "parallel", lambda error, leak, *_: leak > 0),
    (PointsElsewhere, "copies", r"\b41 .*\b37 "),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name", "found"), BROKEN, ids=[f"{k.__name__}-{n}" for k, n, _ in BROKEN])
def test_each_check_fails_on_the_model_that_was_broken_for_it(kind, name, found):
    failed = {check.name: check for check in failures(made(kind), only=[name])}
    assert name in failed
    numbers = map(float, re.findall(r"\d\.\de[+-]\d\d", failed[name].found))
    assert found(*numbers) if callable(found) else re.search(found, failed[name].found), failed[name].line
    assert failed[name].remedy in failed[name].line


def test_a_kernel_that_computes_something_else_is_noticed(monkeypatch):
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: 1.01 * kernel(q, k, v))
    (failed,) = failures(made(), only=["patterns"])
    assert re.search(r"(9\.9e-03|1\.0e-02)", failed.found)


def test_a_parallel_pass_that_leaks_nothing_holds():
    checks = {check.name: check for check in examine(made(Parallel), ["parallel", "conditions"])}
    assert checks["parallel"].holds and checks["conditions"].holds


@pytest.mark.slow
def test_points_of_a_deep_network_are_edited_in_three_layers_unless_all_are_asked_for():
    model = tiny.model(layers=17)
    (some,) = examine(model, ["edits"])
    assert re.search(r"\b37\b.*\b205\b", some.found)


def test_conditions_of_which_nothing_is_said_are_asked_for():
    model = made()
    model.null_condition = None
    first, *others = failures(model)
    assert "null_condition" in first.found and ".py:" not in first.found
    assert others and len({check.found for check in others}) == 1 and "velocity" in others[0].found


# The command


@pytest.fixture
def command(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)

    def run(*arguments):
        status = check_main([*map(str, arguments)])
        said = capsys.readouterr()
        return status, said.out.splitlines(), said.err.splitlines()

    return run


@pytest.mark.slow
def test_the_template_passes_and_the_status_says_so(command):
    status, lines, errors = command("--model", TEMPLATE, "--set", "seed=1")
    assert (status, errors) == (0, [])
    assert re.search(rf"\b15\b.*\b15\b.*{TEMPLATE}", lines[-1]) and len(lines) == 18


def test_a_model_that_does_not_keep_the_contract_gives_status_1(command, tmp_path):
    adapter = tmp_path / "broken.py"
    adapter.write_text(
        "import torch\nfrom framelens.models.adapter_template import Adapter, Net\n\n\n"
        "class Forgets(Adapter):\n    def encode(self, x, context):\n"
        "        return type(context)(context.frame + 1, context.cache, context.actions)\n\n\n"
        "def load():\n    return Forgets(Net())\n"
    )
    status, lines, _ = command("--model", f"{adapter}:load")
    (failed,) = failures(models.load(f"{adapter}:load"), only=["frames"])
    assert status == 1 and any(failed.remedy in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nonsense"], "'nonsense'"),
        (["--model", TEMPLATE, "--chunks", 2], " 3 .* 1 .* 2 .* 2"),
        (["--model", TEMPLATE, "--set", "seed"], "--set.*'seed'"),
        (["--model", TEMPLATE, "--set", "height=3"], "'height'.*seed: int = 0"),
        (["--model", "models/adapter_template.py:made"], "'made'.*Adapter"),
        (["--model", TEMPLATE, "--dtype", "int8"], "'int8'"),
    ],
)
def test_a_bad_request_gets_status_2_and_one_line(command, arguments, message):
    status, lines, errors = command(*arguments)
    assert status == 2 and not lines
    (line,) = errors
    assert line.startswith("framelens check: ") and re.search(message, line)


def test_the_template_is_neither_a_network_nor_a_family():
    assert "adapter_template" not in {*models.networks(), *models.families()}


@pytest.mark.slow
def test_a_checked_model_is_left_as_it_was():
    model = made()
    before = copy.deepcopy(model.state_dict())
    names = {name: set(vars(module)) for name, module in model.named_modules()}
    list(examine(model))
    assert {name: set(vars(module)) for name, module in model.named_modules()} == names
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules() if isinstance(module, nn.Module))
