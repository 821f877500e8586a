"""Prompts: embedded as diffusers' Wan pipeline does it; files of prompts and encoders refused in one line."""

import contextlib
import io
import json
import re
import sys
from types import SimpleNamespace

import pytest
import tiny_vae
import torch
from bounds import assert_same, rounding

from framelens.models.encoders import prompts as _prompts
from framelens.models.encoders.prompts import TOKENS, clean, open_text_encoder, read_prompts
from framelens.models.encoders.vae import open_vae
from framelens.models.loading.memory import bytes_as

SENTENCES = ["a red ball runs", "", "the  cat\ton the\u00a0lawn &amp;amp; .", "green " * 600]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return tiny_vae.save_pipeline(tmp_path_factory.mktemp("pipeline"))


def stock(prompts):
    """What diffusers' own pipeline makes of them."""
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

    own = WanPipeline(
        tiny_vae.tokenizer(), tiny_vae.text_encoder(), tiny_vae.wan(), FlowMatchEulerDiscreteScheduler()
    )
    return own.encode_prompt(prompts, do_classifier_free_guidance=False, max_sequence_length=TOKENS)[0]


def test_embeddings_are_those_of_wans_pipeline(pipeline):
    found = open_text_encoder(str(pipeline)).embed(SENTENCES)
    assert found.shape == (4, TOKENS, 16) and found.dtype == torch.float32
    expected = stock(SENTENCES)
    assert_same(found, expected, bound=rounding(torch.float32, 512, 2, expected))
    tokens = (found != 0).any(-1).sum(1).tolist()
    assert tokens == [5, 1, 8, TOKENS]


@pytest.mark.parametrize("folder", ["", "text_encoder"])
def test_a_pipeline_or_its_folder_is_read(pipeline, folder):
    encoder = open_text_encoder(str(pipeline / folder), dtype="bfloat16")
    rough, said = encoder.embed(SENTENCES[:1]), encoder.describe()
    assert said["class"] == "UMT5EncoderModel" and said["dtype"] == "bfloat16"
    exact = open_text_encoder(str(pipeline)).embed(SENTENCES[:1])
    assert 0 < (rough - exact).abs().max() < 0.1


def test_what_is_cut_is_said(pipeline):
    encoder = open_text_encoder(str(pipeline))
    notes = encoder.notes(["a cat", "red " * 511 + "ball runs"])
    assert len(notes) == 1 and re.search(r"\b2 .*\b514 .*\b512 .*'ball runs'", notes[0])


def test_prompts_beyond_ascii_are_pointed_out_where_they_cannot_be_mended(pipeline, monkeypatch):
    encoder = open_text_encoder(str(pipeline))
    monkeypatch.setattr(_prompts, "has_ftfy", lambda: False)
    assert re.search(r"ASCII.*\b2\b", encoder.notes(["a", "é"])[0])
    assert "negative" in encoder.notes(["a"], negative="é")[0]
    monkeypatch.setattr(_prompts, "has_ftfy", lambda: True)
    mender = SimpleNamespace(fix_text=lambda text: text.replace("；", ";"))
    monkeypatch.setitem(sys.modules, "ftfy", mender)
    assert not encoder.notes(["a", "é"])
    assert clean(" a ；") == "a ;"


def test_cleaning_resolves_entities_and_spaces():
    assert clean("  a &lt;b&gt;\n c&amp;amp;d ") == "a <b> c&d"


def test_a_file_of_prompts_is_read_line_by_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa red ball\r\n l'été \n\n".encode())
    assert read_prompts(path) == ["a red ball", "l'été"]


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (b"", "prompts.txt"),
        (b" \n\n", "prompts.txt"),
        (b"a\n\nb\n \nc", r"\(2, 4\)"),
        (b"caf\xe9", r"UTF-8.*\b3\b"),
    ],
)
def test_other_files_of_prompts_are_refused(tmp_path, held, said):
    path = tmp_path / "prompts.txt"
    path.write_bytes(held)
    with pytest.raises(ValueError, match=said) as caught:
        read_prompts(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_tables_of_prompts_are_refused(tmp_path, suffix):
    path = tmp_path / f"prompts{suffix}"
    path.write_text("id,prompt\n1,a cat\n")
    with pytest.raises(ValueError, match="not plain lines"):
        read_prompts(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_every_system_are_prompts(tmp_path, end):
    path = tmp_path / "prompts.txt"
    path.write_bytes(end.join(["a cat [runs]", '"a dog"', "{braces} of a horse"]).encode())
    assert read_prompts(path) == ["a cat [runs]", '"a dog"', "{braces} of a horse"]


def test_a_missing_file_of_prompts_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.txt"):
        read_prompts(tmp_path / "none.txt")


def edited(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: edited(f / "text_encoder/config.json", architectures=["CLIP"]), "CLIP"),
        (lambda f: edited(f / "text_encoder/config.json", num_layers=3), "text_encoder"),
        (lambda f: edited(f / "text_encoder/config.json", d_ff=31), "text_encoder"),
        (lambda f: (f / "text_encoder/model.safetensors").unlink(), "text_encoder"),
        (lambda f: [file.unlink() for file in (f / "tokenizer").iterdir()], "tokenizer"),
        (lambda f: (f / "text_encoder/model.safetensors").write_bytes(b"x" * 99), "model.safetensors"),
    ],
)
def test_spoilt_pipelines_are_refused_in_one_line(tmp_path, spoil, said):
    tiny_vae.save_pipeline(tmp_path)
    spoil(tmp_path)
    with pytest.raises((ValueError, OSError), match=said) as caught:
        open_text_encoder(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", [("tokenizer_config.json",), ("tokenizer_config.json", "config.json")])
def test_code_beside_a_tokenizer_is_not_run_whatever_is_answered(tmp_path, monkeypatch, names):
    tiny_vae.save_pipeline(tmp_path)
    folder, mark = tmp_path / "tokenizer", tmp_path / "run"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    for name in names:
        file = folder / name
        held = json.loads(file.read_text()) if file.exists() else {}
        changes = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
        file.write_text(json.dumps(held | changes))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    with contextlib.suppress(ValueError, OSError):
        open_text_encoder(str(tmp_path))
    assert not mark.exists() and sys.stdin.read() == "y\n" * 9, "code ran, or the user was asked"


def test_too_little_memory_is_said_before_the_weights_are_read(pipeline, monkeypatch):
    file = pipeline / "text_encoder" / "model.safetensors"
    parameters = sum(p.numel() for p in tiny_vae.text_encoder().parameters())
    assert bytes_as([file], torch.bfloat16) == 2 * parameters
    monkeypatch.setattr("framelens.models.loading.memory.free_bytes", lambda device: 1000)
    with pytest.raises(ValueError, match=r"\bGB\b.*cpu"):
        open_text_encoder(str(pipeline))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one pipeline, org/pipeline, and one VAE, org/vae, that hands out only requested files."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    tiny_vae.save_pipeline(tmp_path / "org/pipeline")
    (tmp_path / "org/pipeline/diffusion_pytorch_model.safetensors").write_bytes(b"another model's")
    tiny_vae.wan().save_pretrained(tmp_path / "org/vae")

    def snapshot_download(repo, revision, allow_patterns):
        there, here = tmp_path / repo, tmp_path / "snapshots" / "c0ffee" / repo
        if not there.exists():
            raise huggingface_hub.errors.LocalEntryNotFoundError("two\nlines")
        files = [str(file.relative_to(there)) for file in there.rglob("*") if file.is_file()]
        for file in filter_repo_objects(files, allow_patterns=allow_patterns):
            (here / file).parent.mkdir(parents=True, exist_ok=True)
            (here / file).write_bytes((there / file).read_bytes())
        return str(here)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return tmp_path / "snapshots/c0ffee/org"


@pytest.mark.parametrize("name", ["org/pipeline@main", "org/pipeline/text_encoder@main"])
def test_of_a_hubs_pipeline_only_the_text_encoder_and_its_tokenizer_come(hub, name):
    encoder = open_text_encoder(name)
    assert encoder.embed(["a cat"]).shape == (1, TOKENS, 16)
    assert encoder.describe()["repo"] == "org/pipeline" and encoder.describe()["revision"] == "c0ffee"
    come = {path.name for path in (hub / "pipeline").iterdir()}
    assert come - {"config.json"} == {"text_encoder", "tokenizer"}


def test_of_a_hubs_pipeline_only_the_vae_comes_or_a_repository_is_the_vae(hub):
    for name in ("org/pipeline", "org/pipeline/vae", "org/vae"):
        assert open_vae(name).kind == "AutoencoderKLWan"
    assert [path.name for path in (hub / "pipeline").iterdir()] == ["vae"]


def test_a_hub_that_cannot_be_reached_is_one_line(hub):
    with pytest.raises(OSError, match="org/nothing") as caught:
        open_vae("org/nothing")
    assert "\n" not in str(caught.value)
