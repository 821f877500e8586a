"""A model around another one says what that says, and lacks what that lacks."""

import pytest
import tiny

from framelens.diffusion.around import Around
from framelens.diffusion.guidance import guided
from framelens.diffusion.sampler import CausalDiffuser
from framelens.models import scd
from framelens.models.variants.captured import Captured
from framelens.models.variants.cut import CutModel

HANDED_ON = [name for name, value in vars(Around).items() if isinstance(value, property)]


def separated():
    small = tiny.SHAPE | {"conditions": 5}
    return scd.build(scd.Config(encoder_layers=1, decoder_layers=1, **small)).eval()


@pytest.mark.parametrize("make", [lambda: tiny.model(conditions=5), separated], ids=["dense", "scd"])
def test_what_is_handed_on_is_that_of_the_inner_model(make):
    outer, inner = Around(), make()
    outer.model = inner
    assert "geometry" in HANDED_ON and "start" in HANDED_ON
    for name in HANDED_ON:
        assert hasattr(outer, name) == hasattr(inner, name), name
        assert getattr(outer, name, None) == getattr(inner, name, None), name
    assert not hasattr(outer, "denoise") and not hasattr(outer, "teacher_forced")


def test_wrapped_models_keep_the_contract():
    model = tiny.model(conditions=5)
    for outer in (CutModel(model, []), Captured(model, "graph"), guided(model, 2.0)):
        assert isinstance(outer, CausalDiffuser) and outer.geometry == model.geometry


def test_a_captured_model_without_features_cannot_be_guided_by_context():
    with pytest.raises(ValueError):
        guided(Captured(tiny.model(conditions=5), "graph"), 1.5, "context")
