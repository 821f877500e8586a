"""Models of the hub: from a cache as its library keeps it, pinned by commit; refusals in one line."""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import huggingface_hub
import pytest
import tiny
import tiny_wan
import torch
from huggingface_hub import constants, errors
from safetensors.torch import load_file, save_file

from framelens import models
from framelens.models.loading import hub
from framelens.models.loading.files import files_of
from framelens.models.loading.locate import find
from framelens.probes.run.folder import manifest
from framelens.probes.run.settings import Settings

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub's library, which may not be left."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cached(cache, repo, commit=COMMIT, revision="main"):
    """The folder of a repository's snapshot in the cache."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    reference = folder / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
    return folder / "snapshots" / commit


def refused(name, **asked):
    with pytest.raises((ValueError, OSError)) as caught:
        models.load(name, **asked)
    (line,) = str(caught.value).splitlines()
    return line


# What is there


@pytest.mark.parametrize(
    ("name", "repo", "inside", "revision"),
    [
        ("org/name", "org/name", ".", None),
        ("org/name@main", "org/name", ".", "main"),
        ("org/na.me-1.3B@refs/pr/3", "org/na.me-1.3B", ".", "refs/pr/3"),
        ("org/name/checkpoints/a.pt@v1.0", "org/name", "checkpoints/a.pt", "v1.0"),
        ("org/name/a@b/c.pt", "org/name", "a@b/c.pt", None),
        ("org/name/a@b.c@d.pth@main", "org/name", "a@b.c@d.pth", "main"),
        ("org/name/step@100.safetensors", "org/name", "step@100.safetensors", None),
        ("org/name/last.ckpt", "org/name", "last.ckpt", None),
    ],
)
def test_a_hub_id_is_taken_apart(name, repo, inside, revision, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = find(name, {})
    assert (place.kind, place.repo, place.path, place.revision) == ("hub", repo, Path(inside), revision)


@pytest.mark.parametrize("name", ["org/name@", "org/name@a b", "./org/name", "/org/name"])
def test_what_is_no_hub_id_is_looked_for_on_disk(name):
    assert name in refused(name)


def test_a_file_may_not_leave_its_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "../../a.pt" in refused("org/name/../../a.pt")


def test_a_folder_of_the_hub_is_loaded_and_its_commit_is_in_the_manifest(cache):
    network = tiny_wan.stock()
    tiny_wan.pipeline(cached(cache, "org/wan"), {"transformer": network})
    model = models.load("org/wan", **tiny_wan.SAID)
    assert (model.source.repo, model.source.revision) == ("org/wan", COMMIT)
    assert models.label("org/wan") == "org--wan"
    about = asdict(manifest("", model, "org--wan", Settings(context=1), 3, "org/wan").model)
    assert (about["repo"], about["revision"]) == ("org/wan", COMMIT)
    pinned = models.load(f"org/wan@{COMMIT}", **tiny_wan.SAID)
    assert pinned.source == model.source


def test_a_file_of_the_hub_is_loaded_at_its_revision(cache):
    weights = tiny_wan.original(tiny_wan.stock())
    for commit, revision, scale in ((COMMIT, "main", 1.0), (OTHER, "v2", 2.0)):
        folder = cached(cache, "org/forcing", commit, revision)
        tiny_wan.released(folder / "checkpoints" / "a@1.pt", {n: scale * t for n, t in weights.items()})
    main, second = (
        models.load(f"org/forcing/checkpoints/a@1.pt{at}", frames_per_chunk=1, heads=2, **tiny_wan.SAID)
        for at in ("", "@v2")
    )
    assert (main.source.revision, second.source.revision) == (COMMIT, OTHER)
    assert torch.equal(2 * main.proj_out.weight, second.proj_out.weight)
    assert models.label("org/forcing/checkpoints/a@1.pt") == "org--forcing--checkpoints--a@1"


def test_a_checkpoint_of_ours_is_loaded_from_the_hub(cache):
    folder = cached(cache, "org/ours")
    tiny.checkpoint(folder / "a.ckpt.safetensors")
    assert models.load("org/ours/a.ckpt.safetensors").source.revision == COMMIT


def test_a_lightning_checkpoint_is_read_by_its_suffix(tmp_path):
    path = tmp_path / "last.ckpt"
    weights = {f"model.{name}": t for name, t in tiny_wan.original(tiny_wan.stock()).items()}
    torch.save({"state_dict": weights}, path)
    assert models.load(str(path), frames_per_chunk=1, heads=2, **tiny_wan.SAID).describe()["layers"] == 2


# What is not


def response(status):
    import httpx2

    return httpx2.Response(status, request=httpx2.Request("GET", "https://hub"))


def raising(error):
    def fetch(*_, **__):
        raise error

    return fetch


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.RepositoryNotFoundError("no\nno", response=response(404)), "org/name"),
        (errors.GatedRepoError("no\nno", response=response(403)), "org/name"),
        (errors.RevisionNotFoundError("no\nno", response=response(404)), "'v9'"),
        (errors.LocalEntryNotFoundError("no\nno"), "org/name"),
        (errors.HfHubHTTPError("no\nno", response=response(500)), "org/name"),
        (ConnectionError("no\nno"), "(ConnectionError)"),
        (errors.HFValidationError("Repo id must\nno"), "org/name@v9"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)  # fmt: skip
@pytest.mark.parametrize("name", ["org/name@v9", "org/name/a.pt@v9"])
def test_refusals_of_the_hub_are_one_line(monkeypatch, tmp_path, error, said, name):
    monkeypatch.chdir(tmp_path)
    for function in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, function, raising(error))
    assert said.replace("org/name@v9", name) in refused(name)


def test_a_file_that_is_not_there_is_answered_with_those_that_are(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    missing = errors.RemoteEntryNotFoundError("no", response=response(404))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", raising(missing))
    files = ["README.md", *(f"checkpoints/{index}.pt" for index in range(10))]
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda repo, revision=None: files)
    line = refused("org/name/x.pt")
    assert re.match(r"org/name .*x\.pt.* checkpoints/0\.pt, ", line)
    assert re.search(rf"checkpoints/{hub.LISTED - 1}\.pt .*\b2\b", line)


def test_offline_what_is_not_in_the_cache_is_said_so(cache):
    assert "org/name" in refused("org/name")
    cached(cache, "org/name")
    assert "org/name/a.pt" in refused("org/name/a.pt")


def test_a_repository_of_loose_files_lists_them(cache, monkeypatch):
    folder = cached(cache, "org/loose")
    (folder / "README.json").write_text("{}")
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda repo, revision=None: ["b.pt", "a.md"])
    assert re.search(r"config\.json.*model_index\.json.* b\.pt$", refused("org/loose"))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config.json": {"_class_name": "UNet2DConditionModel"}}, "UNet2DConditionModel"),
        ({"config.json": {"architectures": ["LlamaForCausalLM"]}}, "LlamaForCausalLM"),
        ({"config.json": {"model_type": "llama"}}, "llama"),
        ({"config.json": {}}, "config.json"),
        ({"model_index.json": {"_class_name": "SDPipeline"}}, "SDPipeline"),
    ],
)  # fmt: skip
def test_another_architecture_is_named_before_its_weights_are_fetched(cache, monkeypatch, files, said):
    folder, asked = cached(cache, "org/other"), []
    for name, config in files.items():
        (folder / name).write_text(json.dumps(config))
    plain = huggingface_hub.snapshot_download

    def noting(*args, **options):
        asked.append(options["allow_patterns"])
        return plain(*args, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", noting)
    line = refused("org/other")
    assert said in line and "WanTransformer3DModel" in line
    assert asked == [hub.CONFIGURATIONS]


# The files of a folder


@pytest.fixture
def sharded(tmp_path):
    """A network in three shards and their index."""
    folder = tmp_path / "sharded"
    tiny_wan.stock().save_pretrained(folder, max_shard_size="30KB")
    assert len(list(folder.glob("*-of-*.safetensors"))) > 2
    return folder


def test_shards_are_one_network(sharded, tmp_path):
    whole = tiny_wan.load(tiny_wan.folder(tmp_path / "whole", tiny_wan.stock()))
    parts = tiny_wan.load(sharded)
    for (name, a), b in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_missing_shard_is_named(sharded):
    lost = sorted(sharded.glob("*-of-*.safetensors"))[1]
    lost.unlink()
    line = refused(str(sharded), **tiny_wan.SAID)
    assert lost.name in line and "diffusion_pytorch_model.safetensors.index.json" in line
    next(sharded.glob("*.index.json")).unlink()
    assert "index" in refused(str(sharded), **tiny_wan.SAID)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}', '{"other": {}}'])
def test_an_index_that_is_none_is_named(sharded, text):
    next(sharded.glob("*.index.json")).write_text(text)
    assert ".index.json" in refused(str(sharded), **tiny_wan.SAID)


def test_an_index_cannot_name_files_elsewhere(sharded):
    index = next(sharded.glob("*.index.json"))
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    assert "../secret.safetensors" in refused(str(sharded), **tiny_wan.SAID)


def test_a_variant_is_read_where_there_is_nothing_else(tmp_path):
    folder = tiny_wan.folder(tmp_path / "network", tiny_wan.stock())
    plain = folder / "diffusion_pytorch_model.safetensors"
    half = folder / "diffusion_pytorch_model.fp16.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(plain).items()}, half)
    assert files_of(folder) == [plain], "the plain weights come before a variant's"
    plain.unlink()
    assert files_of(folder) == [half]
    assert tiny_wan.load(folder).patch_embedding.weight.dtype == torch.float32
    torch.save({}, folder / "diffusion_pytorch_model.bin")
    assert files_of(folder) == [folder / "diffusion_pytorch_model.bin"]
    shutil.rmtree(folder)
    variant = tmp_path / "variant"
    tiny_wan.stock().save_pretrained(variant, max_shard_size="30KB", variant="fp16")
    assert len(files_of(variant)) > 2 and all(".fp16" in file.name for file in files_of(variant))
