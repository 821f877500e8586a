"""What an adapter's model declares: wrong kinds are refused on loading, wrong sizes by `make check`."""

import re

import pytest
import tiny

from framelens import models
from framelens.models import adapter_template
from framelens.probes.check.examine import examine, failures

HEAD = (
    "from framelens.diffusion.contract import Geometry\n"
    "from framelens.models.adapter_template import Adapter, Net\n\n\n"
    "class Mine(Adapter):\n{body}\n\n\ndef load():\n    model = Mine(Net())\n{after}    return model\n"
)
GEOMETRY = "    model.geometry = Geometry(1, 3, 20, 20, {}, {}, {}, {})\n"
REFUSED = {
    "a tuple for a geometry": ("", "    model.geometry = 3\n", "geometry.* int.*Geometry"),
    "patches that do not fit": ("", GEOMETRY.format(3, 4, 4, 64), "20 x 20"),
    "no layer": ("", GEOMETRY.format(4, 0, 4, 64), r"geometry\.layers.* 0"),
    "modules as attention": (
        "    attn_dict = property(lambda self: {'blocks.0.attn': self.blocks[0].attn})",
        "",
        r"attn_dict\['blocks.0.attn'\].*Attention.*AttentionPoint",
    ),
    "no hook points": (
        "    hook_dict = property(lambda self: {})", "", "hook_dict",
    ),
    "a list of hook points": (
        "    hook_dict = property(lambda self: [])", "", "hook_dict.* list",
    ),
    "a method that is none": ("    encode = None", "", "encode.*NoneType"),
    "an error within a property": (
        "    @property\n    def hook_dict(self):\n        return self.net.points", "",
        "hook_dict.*'Net'.*'points'",
    ),
    "conditions of no kind": ("    takes = 'camera'", "", "takes.*'camera'.*'actions'"),
    "a tuple for a sampling": ("    sampling = (4, 1)", "", "sampling.*tuple.*Sampling"),
    "an error of its own": (
        "", "    raise RuntimeError('weights\\nmissing')\n", "RuntimeError.*mine.py:11: weights",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_declares_another_kind_of_thing_is_refused_in_one_line(tmp_path, name):
    body, after, message = REFUSED[name]
    file = tmp_path / "mine.py"
    file.write_text(HEAD.format(body=body or "    pass", after=after))
    with pytest.raises(ValueError) as error:
        models.load(f"{file}:load")
    assert re.search(message, str(error.value)) and "\n" not in str(error.value)


def test_an_error_in_the_file_itself_is_told_in_one_line(tmp_path):
    (tmp_path / "mine.py").write_text("\nwidth = depth\n")
    with pytest.raises(ValueError, match=r"NameError.*mine\.py:2: .*'depth'"):
        models.load(f"{tmp_path}/mine.py:load")


def test_a_geometry_of_another_network_does_not_hold():
    for field, wrong, found in (
        ("patch", 2, "100 .*25"),
        ("heads", 8, "8 .*4"),
        ("layers", 6, "6 .*4"),
        ("d_model", 32, "d_model 32 .*64"),
    ):
        model = adapter_template.load()
        model.geometry = type(model.geometry)(**{**vars(model.geometry), field: wrong})
        (failed,) = failures(model, only=["geometry"])
        assert re.search(found, failed.found), failed.line


def test_an_error_that_explains_every_check_is_told_once():
    class Broken(type(tiny.model())):
        def denoise(self, x, sigma, context):
            return context.nothing

    model = tiny.model()
    model.__class__ = Broken
    found = [check.found for check in examine(model) if check.holds is False]
    assert re.search(r"AttributeError.*test_adapter_contract.py:\d+: .*'nothing'", found[0])
    assert len(found) > 5 and len(set(found[1:])) == 1 and "velocity" in found[1]
