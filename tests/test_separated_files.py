"""A separated network of any family is saved, and opens as any model does; what does not fit is refused."""

import copy
import json

import batches
import pytest
import tiny
import torch
import twins
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from framelens import models
from framelens.diffusion.contract import traits
from framelens.diffusion.sampler import rollout
from framelens.diffusion.schedule import sigma_grid
from framelens.models.cost.shape import shape_of
from framelens.models.loading import checkpoint
from framelens.models.separated.network import SeparatedNetwork
from framelens.models.variants.separated import separate
from framelens.probes.check.__main__ import main as check

FAMILIES = ["wan", "self_forcing", "skyreels", "anyflow", "far", "far_long"]
HOW = [{"fusion": "prefix", "query": "learned"}, {"fusion": "token_concat", "query": "noise"}]
SHARED = [(name, share) for name in FAMILIES for share in (False, True) if share or name != "far"]


def separated(name, folder, share=True, head=1, **how):
    """The network of that family, its layers again as a decoder of the first `head` and the last."""
    path, said = twins.twin(name, folder)
    network = models.load(path, **said)
    depth = network.geometry.layers
    return separate(
        network, encoder=range(depth), head=range(head), tail=range(depth - 1, depth), share=share, **how
    )


@pytest.fixture
def file(tmp_path):
    models.save(separated("far_long", tmp_path, head=0), tmp_path / "separated.safetensors")
    return tmp_path / "separated.safetensors"


def sample(model):
    """Frames of two chunks in two steps."""
    noise, cond = batches.clip(model, 1, 2, seed=1), batches.condition(model, 1, 2)
    return rollout(model, noise, sigma_grid(2), cond)


@pytest.mark.parametrize(("name", "share"), SHARED)
def test_it_opens_as_the_same_network(name, share, tmp_path):
    model = separated(name, tmp_path, share)
    models.save(model, tmp_path / "separated.safetensors")
    again = models.load(str(tmp_path / "separated.safetensors"))
    assert isinstance(again, SeparatedNetwork) and not again.training
    assert torch.equal(sample(again), sample(model))
    ours, theirs = traits(again), traits(model)
    assert ours.describe() == theirs.describe() and ours.takes == theirs.takes
    assert (ours.sampling, ours.latent, ours.density) == (theirs.sampling, True, theirs.density)
    assert again.source.metadata["separated_from"] == model.encoder.source.metadata["separated_from"] != ""
    weights = [*again.parameters()]
    assert not any(weight.is_meta or weight.requires_grad for weight in weights)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_fusion_and_query_opens_as_the_same_network(name, how, tmp_path):
    model = separated(name, tmp_path, **how)
    models.save(model, tmp_path / "separated.safetensors")
    again = models.load(str(tmp_path / "separated.safetensors"))
    assert again.how == model.how and traits(again).describe() == traits(model).describe()
    assert torch.equal(sample(again), sample(model))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "how"), [("wan", HOW[0]), ("anyflow", HOW[1])])
def test_check_finds_nothing(name, how, tmp_path, capsys):
    models.save(separated(name, tmp_path, **how), tmp_path / "separated.safetensors")
    assert check(["--model", str(tmp_path / "separated.safetensors")]) == 0, capsys.readouterr().out


def test_a_copy_shares_nothing(tmp_path):
    model = separated("wan", tmp_path, share=False, **HOW[0])
    before, other = sample(model), copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    assert torch.equal(sample(model), before) and not torch.equal(sample(other), before)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_that_is_not_separated_is_saved_and_opened_too(name, tmp_path):
    path, said = twins.twin(name, tmp_path)
    network = models.load(path, **said)
    models.save(network, tmp_path / "own.safetensors")
    again = models.load(str(tmp_path / "own.safetensors"))
    assert torch.equal(sample(again), sample(network))
    ours, theirs = traits(again), traits(network)
    assert (ours.sampling, ours.latent, ours.density) == (theirs.sampling, theirs.latent, theirs.density)


def test_shared_weights_are_stored_once_and_are_shared_again(tmp_path):
    model = separated("wan", tmp_path)
    models.save(model, tmp_path / "separated.safetensors")
    stored = load_file(tmp_path / "separated.safetensors")
    again = models.load(str(tmp_path / "separated.safetensors"))
    count = sum(weight.numel() for weight in model.parameters())
    assert sum(tensor.numel() for tensor in stored.values()) == count
    assert sum(weight.numel() for weight in again.parameters()) == count
    assert again.encoder.blocks[0].ffn.net[2].weight is again.decoder.blocks[0].ffn.net[2].weight


def test_copies_are_stored_and_opened_apart(tmp_path):
    model = separated("wan", tmp_path, share=False)
    with torch.no_grad():
        model.decoder.blocks[0].ffn.net[2].weight.zero_()
    models.save(model, tmp_path / "separated.safetensors")
    again = models.load(str(tmp_path / "separated.safetensors"))
    assert not again.decoder.blocks[0].ffn.net[2].weight.any()
    assert again.encoder.blocks[0].ffn.net[2].weight.any()


def test_precision_that_a_network_asks_for_is_kept(tmp_path):
    models.save(separated("wan", tmp_path, share=False), tmp_path / "separated.safetensors")
    again = models.load(str(tmp_path / "separated.safetensors"), dtype="bfloat16")
    assert again.decoder.proj_out.weight.dtype == torch.bfloat16
    assert again.decoder.blocks[0].scale_shift_table.dtype == torch.float32


def test_labels_and_a_window_hold_for_an_opened_one(tmp_path):
    models.save(separated("far", tmp_path), tmp_path / "separated.safetensors")
    again = models.load(str(tmp_path / "separated.safetensors"), window=1)
    assert traits(again).takes == "labels" and again.encoder.config.window == 1
    plain = models.load(str(tmp_path / "separated.safetensors"))
    noise, cond = batches.clip(again, 1, 4, seed=1), batches.condition(again, 1, 4)
    bounded, whole = (rollout(model, noise, sigma_grid(1), cond) for model in (again, plain))
    assert torch.equal(bounded[:, :2], whole[:, :2]) and not torch.equal(bounded[:, 3], whole[:, 3])


def test_the_cost_is_that_of_an_scd_of_these_layers():
    network = tiny.model(layers=4, conditions=3)
    layers = {"encoder": range(3), "head": range(1), "tail": range(3, 4)}
    shared, copied = (separate(network, **layers, share=share) for share in (True, False))
    assert shape_of(shared.config) == shape_of(copied.config)


def changed(file, **changes):
    """The same weights, with other values in the stored configuration; None takes one away."""
    with safe_open(file, framework="pt") as opened:
        metadata = json.loads(opened.metadata()["framelens"])
    metadata["config"] = {k: v for k, v in (metadata["config"] | changes).items() if v is not None}
    save_file(load_file(file), file, metadata={"framelens": json.dumps(metadata)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": [0]}, "is of another network: .*'decoder.blocks.0"),
        ({"encoder": [1]}, r"of 2 layers .*got encoder \[1\]"),
        ({"encoder": 2}, "does not fit a separated network: encoder must be .*, got 2"),
        ({"encoder": [0, "1"]}, r"encoder\[1\] must be .*, got '1'"),
        ({"tail": [0]}, r"of 2 layers .*got encoder \[0, 1\], head \[\], tail \[0\]"),
        ({"head": None, "tail": None}, "it has no head, tail"),
        ({"layers": 3}, "it has an unknown layers"),
        ({"network": "oasis"}, "halves of 'oasis' cannot be built; supported are .*dense"),
        ({"network": "separated"}, "halves of 'separated' cannot be built"),
        ({"network": ["dense"]}, r"network must be .*, got \['dense'\]"),
        ({"network": "scd"}, "does not fit a separated network"),
        ({"network": "dense"}, "does not fit a separated network: .*context_patch"),
        ({"config": {}}, "does not fit a separated network"),
        ({"config": [1]}, "does not fit a separated network"),
        ({"fusion": "add"}, "separated with fusion residual, prefix, token_concat, got 'add'"),
        ({"query": "frame"}, "no query is called 'frame'; there are noise, learned"),
        ({"share": "yes"}, "share must be .*, got 'yes'"),
        ({"share": False}, "is of another network: .*missing"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(file, changes, message):
    changed(file, **changes)
    with pytest.raises(ValueError, match=message) as error:
        models.load(str(file))
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)


def test_no_heads_are_refused_in_one_line(file):
    with safe_open(file, framework="pt") as opened:
        config = json.loads(opened.metadata()["framelens"])["config"]["config"]
    changed(file, config=config | {"heads": 0})
    with pytest.raises(ValueError, match="does not fit a separated network") as error:
        models.load(str(file))
    assert "\n" not in str(error.value)


def test_a_large_one_is_written_in_shards_and_opens_from_their_folder(tmp_path):
    model, folder = separated("wan", tmp_path), tmp_path / "shards" / "split"
    models.save(model, folder, shard_size="20KB")
    names = sorted(file.name for file in folder.iterdir())
    assert len(names) > 3 and names[-1] == "model.safetensors.index.json"
    assert all((folder / name).stat().st_size < 40_000 for name in names)
    assert [file.name for file in folder.parent.iterdir()] == ["split"]
    again = models.load(str(folder))
    assert torch.equal(sample(again), sample(model)) and models.label(str(folder)) == "split"
    assert len(again.source.sha256) == 64 and again.source.file == folder
    models.save(model, tmp_path / "whole", shard_size=10**9)
    assert [file.name for file in (tmp_path / "whole").iterdir()] == ["model.safetensors"]
    assert torch.equal(sample(models.load(str(tmp_path / "whole"))), sample(model))


@pytest.fixture
def shards(tmp_path):
    models.save(separated("far_long", tmp_path, head=0), tmp_path / "shards", shard_size="300KB")
    assert len([*(tmp_path / "shards").iterdir()]) > 2
    return tmp_path / "shards"


def test_a_folder_that_holds_something_and_a_size_that_is_none_are_refused(shards, tmp_path):
    model, before = models.load(str(shards)), sorted(shards.iterdir())
    with pytest.raises(ValueError, match="exists: shards are written to a new or an empty folder"):
        models.save(model, shards, shard_size="1GB")
    for size in ("five", "5 apples", 0, -1):
        with pytest.raises(ValueError, match="a shard's size is a number of bytes, or text as '5GB'"):
            models.save(model, tmp_path / "other", shard_size=size)
    assert sorted(shards.iterdir()) == before and not (tmp_path / "other").exists()


def test_shards_that_lack_one_or_are_of_two_networks_are_refused(shards, tmp_path):
    first, second, *_ = sorted(shards.glob("*.safetensors"))
    changed(first, share=False)
    with pytest.raises(ValueError, match="are not those of one framelens model"):
        models.load(str(shards))
    second.unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {second.name}"):
        models.load(str(shards))


def test_an_interrupted_save_leaves_no_folder(tmp_path, monkeypatch):
    model, written = separated("far_long", tmp_path), []

    def stop(path, *_):
        written.append(path.parent)
        path.parent.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        models.save(model, tmp_path / "shards", shard_size="300KB")
    assert written and not written[0].exists() and not (tmp_path / "shards").exists()
