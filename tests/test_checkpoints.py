"""Checkpoints: what was written comes back, and what cannot be read says why in one line."""

import json
import re
from pathlib import Path

import pytest
import tiny
import torch
from bounds import assert_same
from precision import double_precision
from safetensors.torch import load_file, save_file

from framelens import models
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.models.loading import checkpoint, devices
from framelens.models.loading.shuffled import copy_shuffled


@pytest.fixture
def path(tmp_path):
    return tiny.checkpoint(tmp_path / "tiny.safetensors", tiny.model())


def refused(path, *settings):
    """The line with which reading that file is refused."""
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        models.load(str(path), *settings)
    (line,) = str(error.value).splitlines()
    return line


def altered(path, **changes):
    """The same weights under other metadata."""
    known = tiny.metadata(tiny.model()) | changes
    save_file(load_file(path), path, metadata={"framelens": json.dumps(known)})
    return path


def test_what_was_written_comes_back(path):
    model, network = models.load(str(path)), tiny.model()
    assert model.config == network.config and not model.training
    for name, weight in network.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)
    assert not any(weight.requires_grad for weight in model.parameters())
    noise = tiny.draw(1, 2, 3, 8, 8)
    with double_precision():
        noise = noise.double()
        assert_same(*(rollout(each.double(), noise, sigma_grid(2)) for each in (model, network)))


def test_a_model_knows_where_it_came_from(path):
    source = models.load(str(path)).source
    written = json.loads(json.dumps(tiny.metadata(tiny.model())))
    assert source.file == path and source.metadata == written
    tiny.checkpoint(path, tiny.model(seed=1))
    assert len(source.sha256) == 64 and models.load(str(path)).source.sha256 != source.sha256


@pytest.mark.parametrize("dtype", devices.DTYPES)
def test_a_model_is_loaded_in_the_type_asked_for(path, dtype):
    assert {w.dtype for w in models.load(str(path), "cpu", dtype).parameters()} == {getattr(torch, dtype)}


def test_a_folder_stands_for_the_model_in_it(tmp_path):
    tiny.checkpoint(tmp_path / "trial" / "model.safetensors", tiny.model())
    assert models.find(str(tmp_path / "trial")).path == tmp_path / "trial" / "model.safetensors"
    assert models.load(str(tmp_path / "trial")).geometry.layers == 2


def test_results_are_filed_under_the_name_of_the_model(tmp_path, path, monkeypatch):
    tiny.checkpoint(tmp_path / "trial" / "model.safetensors", tiny.model())
    assert models.label(str(path)) == "tiny"
    assert models.label(str(tmp_path / "trial")) == "trial"
    assert models.label(str(tmp_path / "trial" / "model.safetensors")) == "trial"
    monkeypatch.chdir(tmp_path / "trial")
    assert models.label("model.safetensors") == "trial" and models.label(".") == "trial"


def test_shipped_models_are_known_by_name(path, monkeypatch):
    monkeypatch.setattr(models, "WEIGHTS", path.parent)
    assert models.names() == ["tiny"] and models.label("tiny") == "tiny"
    assert models.load("tiny").geometry.layers == 2
    assert re.search("'tny'.* tiny\\b", refused("tny"))


def test_a_missing_checkpoint_is_named(tmp_path):
    for missing in (tmp_path / "none.safetensors", tmp_path / "folder" / "none"):
        assert str(missing) in refused(missing)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_checkpoint_is_named(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert refused(path).startswith(str(path))


def test_something_else_than_a_checkpoint_is_named(path):
    path.write_text("weights\n" * 100)
    assert refused(path).startswith(str(path))
    save_file({"weight": torch.zeros(2)}, path)
    assert refused(path).startswith(str(path))
    save_file({"weight": torch.zeros(2)}, path, metadata={"format": "pt"})
    assert refused(path).startswith(str(path))


def test_a_weight_of_the_wrong_shape_is_named(path):
    altered(path, config=tiny.model(channels=4).describe())
    line = refused(path)
    assert line.startswith(str(path)) and re.search(r"embed\.weight.*\(16, 48\).*\(16, 64\)", line)


def test_weights_of_another_network_are_named(path):
    altered(path, config=tiny.model(layers=3).describe())
    line = refused(path)
    assert line.startswith(str(path)) and "blocks.2.attn.k.bias" in line
    altered(path, config=tiny.model(layers=1).describe())
    assert re.search(r"\b0 .*\[\].*'blocks\.1\.", refused(path))


def test_a_network_we_do_not_have_is_named(path):
    altered(path, network="recurrent")
    known = ", ".join(models.buildable())
    assert "'recurrent'" in refused(path) and known in refused(path)
    altered(path, network=None)
    assert re.search("None.*dense", refused(path))


@pytest.mark.parametrize("config", [{}, {"depth": 3}, tiny.model().describe() | {"depth": 3}])
def test_a_configuration_that_does_not_fit_the_network_is_named(path, config):
    altered(path, config=config)
    assert refused(path).startswith(str(path))


def test_metadata_that_is_damaged_is_named(path):
    save_file(load_file(path), path, metadata={"framelens": '{"network": "den'})
    assert refused(path).startswith(str(path))


def test_devices_and_types_that_are_not_there_are_refused(path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "'gpu'" in refused(path, "gpu")
    assert "'mps'" in refused(path, "mps")
    for device in ("cuda", "cuda:0"):
        assert f"'{device}'" in refused(path, device)
    assert re.search("'float8'.*float32, bfloat16, float16", refused(path, "cpu", "float8"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert re.search(r"'cuda:3'.*\b1\b", refused(path, "cuda:3"))


def test_an_interrupted_write_leaves_the_old_checkpoint_and_nothing_else(path, monkeypatch):
    before = path.read_bytes()

    def interrupted(tensors, partial, metadata):
        Path(partial).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny.checkpoint(path, tiny.model(seed=1))
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_the_null_keeps_each_tensors_values_and_nothing_else():
    model = tiny.model(conditions=3)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    random = copy_shuffled(model, seed=0)
    for name, weight in random.state_dict().items():
        assert torch.equal(weight.flatten().sort().values, before[name].flatten().sort().values)
        assert torch.equal(model.state_dict()[name], before[name])
        assert weight.numel() < 8 or not torch.equal(weight, before[name])
    x, sigma, cond = tiny.draw(1, 1, 3, 8, 8), torch.tensor([0.7]), torch.tensor([[1]])
    outputs = [network.denoise(x, sigma, network.start(1, cond)) for network in (model, random)]
    assert not torch.allclose(*outputs)


def test_the_null_of_one_seed_is_one_network():
    first, again, other = (copy_shuffled(tiny.model(), seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_instruments_on_a_model_are_not_on_its_null():
    model = tiny.model()
    with model.hooks(fwd_hooks=[("hook_embed", lambda value, hook: value * 0)]):
        random = copy_shuffled(model, 0)
    assert random.hook_embed is not model.hook_embed
    assert set(random.hook_dict) == set(model.hook_dict)
    assert random.hook_dict["hook_embed"] is random.hook_embed
    assert random.attn_dict["blocks.0.attn"].module is random.blocks[0].attn


def test_unknown_networks_are_answered_with_those_that_exist():
    assert "dense" in models.networks()
    with pytest.raises(ValueError, match="'sparse'"):
        models.network("sparse")
