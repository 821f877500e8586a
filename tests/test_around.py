"""A model around another one has the traits of the inner one, except its own and those that it hides."""

import pytest
import tiny
import torch

from framelens.diffusion.around import Around
from framelens.diffusion.contract import CausalDiffuser, Traits, traits
from framelens.diffusion.guidance import guide
from framelens.models import scd
from framelens.models.variants.captured import Captured
from framelens.models.variants.cut import CutModel


def separated():
    small = tiny.SHAPE | {"conditions": 5}
    return scd.build(scd.Config(encoder_layers=1, decoder_layers=1, **small)).eval()


class Same(Around):
    """Changes nothing."""

    def __init__(self, model):
        self.model = model

    def denoise(self, x, sigma, context):
        return self.model.denoise(x, sigma, context)


def same(a, b):
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("make", [lambda: tiny.model(conditions=5), separated], ids=["dense", "scd"])
@pytest.mark.parametrize("around", [Same, lambda model: Captured(model, "graph"), lambda m: guide(m, 2.0)])
def test_every_trait_is_handed_on_but_what_is_hidden_and_what_is_its_own(make, around):
    inner = make()
    outer = around(inner)
    said, theirs, nothing = vars(traits(outer)), vars(traits(inner)), vars(Traits())
    own = {"announces", "at_steps"} if outer.hides > Same.hides and traits(outer).announces else set()
    for name in Traits.__dataclass_fields__.keys() - own:
        assert same(said[name], (nothing if name in outer.hides else theirs)[name]), name
    assert outer.hides >= {"teacher_forced", "bidirectional"} and outer.geometry is inner.geometry
    assert outer.hides <= Traits.__dataclass_fields__.keys()


def test_what_a_wrapper_hands_on_of_a_separated_model_are_its_decoder_and_its_questions():
    said = traits(Same(separated()))
    assert said.denoising_stack == "decoder." and said.start_is_pass and said.disturbed is not None
    assert traits(Same(Same(separated()))).denoising_stack == "decoder."


def test_what_a_wrapper_says_itself_is_what_it_says():
    class Loud(Same):
        latent = True
        sampling = None

    assert traits(Loud(tiny.model())).latent and not traits(Same(tiny.model())).latent


def test_wrapped_models_keep_the_contract():
    model = tiny.model(conditions=5)
    for outer in (CutModel(model, []), Captured(model, "graph"), guide(model, 2.0)):
        assert isinstance(outer, CausalDiffuser) and outer.geometry == model.geometry
        assert traits(outer).teacher_forced is None


def test_a_captured_model_without_features_cannot_be_guided_by_context():
    with pytest.raises(ValueError):
        guide(Captured(tiny.model(conditions=5), "graph"), 1.5, "context")
