"""What a checkpoint says of itself is used or refused in one line, and what is assumed is printed once."""

import json

import pytest
import tiny_wan
import torch
from safetensors.torch import save_file

from framelens import models
from framelens.diffusion.schedule import Sampling


@pytest.fixture(scope="module")
def network():
    return tiny_wan.stock()


@pytest.fixture(scope="module")
def weights(network):
    return {f"model.{name}": tensor for name, tensor in tiny_wan.original(network).items()}


def save(path, **held):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(held, path)
    return path


def first_weight(model) -> torch.Tensor:
    return model.state_dict()["patch_embedding.weight"]


FOLDERS = [
    "logs/self_forcing_dmd/checkpoint_model_000600/model.pt",
    "self_forcing_dmd/checkpoints/0600/model.pt",
    "out/run7/checkpoint_model_000600/model.pt",
    "out/run7/iter_000600.pt",
]


@pytest.mark.parametrize("place", FOLDERS)
def test_a_trainers_own_output_is_known_by_its_folders_or_its_keys(tmp_path, weights, place, capsys):
    path = save(tmp_path / "x" / place, generator=weights, generator_ema=weights, critic=weights)
    model = tiny_wan.load(path, heads=2)
    assert model.source.metadata["assumed"]["variant"] == "few-step"
    assert (model.sampling, model.geometry.frames_per_chunk) == (Sampling(4, 5.0, True), 3)
    tiny_wan.load(path, heads=2)
    lines = capsys.readouterr().err.splitlines()
    assert sum("few-step" in line and "--set" in line for line in lines) == 1
    assert all(str(path) in line for line in lines)


def test_a_generator_without_a_critic_is_not_called_distilled(tmp_path, weights):
    path = save(tmp_path / "x" / "run" / "model.pt", generator=weights)
    assert tiny_wan.load(path, heads=2).source.metadata["assumed"]["variant"] == "bidirectional"


def test_a_word_inside_another_word_is_no_hint(tmp_path, network):
    path = tiny_wan.pipeline(tmp_path / "dmdpipe", {"transformer": network}, flow_shift=8.0)
    assert tiny_wan.load(path).sampling == Sampling(50, 8.0)


def test_a_few_step_model_takes_the_shift_of_its_scheduler(tmp_path, network):
    path = tiny_wan.pipeline(tmp_path / "self_forcing_dmd", {"transformer": network}, flow_shift=8.0)
    assert tiny_wan.load(path).sampling == Sampling(4, 8.0, True)


@pytest.mark.parametrize(
    ("held", "read"),
    [
        (("generator_ema:empty", "generator"), "generator"),
        (("generator_ema:none", "generator"), "generator"),
        (("generator_ema", "generator"), "generator_ema"),
        (("model", "ema:shadow"), "ema:shadow"),
        (("model", "ema:other"), "model"),
        (("model", "optimizer"), "model"),
    ],
)
def test_averaged_weights_are_read_where_they_are(tmp_path, weights, held, read):
    def content(name):
        moved = {key: tensor + 0.01 * (name == read) for key, tensor in weights.items()}
        return {
            "empty": {},
            "none": None,
            "shadow": {"decay": 0.99, "shadow": moved},
            "other": {"decay": 0.99, "step": 3},
        }.get(name.partition(":")[2], moved)

    path = save(tmp_path / "x" / "a.pt", **{name.partition(":")[0]: content(name) for name in held})
    expected = weights["model.patch_embedding.weight"] + 0.01
    assert torch.equal(first_weight(tiny_wan.load(path, heads=2)), expected)


@pytest.mark.parametrize("held", [{"generator_ema": {}}, {"generator_ema": {}, "model": {}}, {}])
def test_where_there_are_no_weights_the_empty_keys_are_named(tmp_path, held):
    path = save(tmp_path / "a.pt", **held)
    with pytest.raises(ValueError, match="empty") as error:
        models.load(str(path))
    assert all(name in str(error.value) for name in held)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32])
def test_quantised_weights_are_refused_with_name_and_type(tmp_path, network, dtype):
    plain = tiny_wan.original(network)
    whole = {n: (50 * t).round().to(dtype) if t.ndim > 1 and "blocks" in n else t for n, t in plain.items()}
    save_file({name: tensor.contiguous() for name, tensor in whole.items()}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="quantised") as error:
        tiny_wan.load(tmp_path / "a.safetensors", heads=2)
    assert str(dtype) in str(error.value) and "blocks.0" in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float16])
def test_weights_of_eight_bits_without_a_scale_are_noted(tmp_path, network, dtype, capsys):
    plain = tiny_wan.original(network)
    stored = {n: t.to(dtype) if t.ndim > 1 and "blocks" in n else t for n, t in plain.items()}
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, tmp_path / "a.safetensors")
    model = tiny_wan.load(tmp_path / "a.safetensors", heads=2)
    assert model.state_dict()["blocks.0.ffn.net.2.weight"].dtype == torch.float32
    lines = [line for line in capsys.readouterr().err.splitlines() if "without a scale" in line]
    is_small = torch.finfo(dtype).bits == 8
    assert [str(dtype) in line and "blocks.0" in line for line in lines] == [True] * is_small


def test_a_configuration_that_says_quantised_is_refused_before_the_weights(tmp_path, network):
    folder = tiny_wan.folder(tmp_path / "wan", network)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"load_in_8bit": True}}))
    with pytest.raises(ValueError, match="quantised"):
        tiny_wan.load(folder)


@pytest.mark.parametrize(
    "stated",
    [{"use_karras_sigmas": True}, {"use_dynamic_shifting": True}, {"use_beta_sigmas": True},
     {"use_exponential_sigmas": True}, {"prediction_type": "epsilon"}, {"prediction_type": "v_prediction"}],
)  # fmt: skip
def test_a_scheduler_that_samples_otherwise_is_refused(tmp_path, network, stated):
    folder = tiny_wan.pipeline(tmp_path / "pipe", {"transformer": network})
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({"flow_shift": 3.0} | stated))
    with pytest.raises(ValueError, match=stated.get("prediction_type", "use_")):
        tiny_wan.load(folder)
    plain = {name: False if value is True else "flow_prediction" for name, value in stated.items()}
    file.write_text(json.dumps({"flow_shift": 3.0} | plain))
    assert tiny_wan.load(folder).sampling == Sampling(50, 3.0)
