"""The rows of attention that are kept for pictures: whole, and those that frame_attention averages over."""

from dataclasses import replace

import counted
import numpy as np
import pytest
import tiny
import torch
import xarray as xr
from bounds import assert_same, rounding

from framelens.diffusion.sampler import ForwardPass
from framelens.hooks.attention import Pattern
from framelens.probes.__main__ import main
from framelens.probes.experiments import attention_rows
from framelens.probes.experiments.attention_rows import (
    CLIPS,
    Rows,
    evaluations,
    kept_bytes,
    measure,
    row_bytes,
)
from framelens.probes.experiments.rollouts import watched_rollout

SEES_PAST = ("dense", "chunked", "separated, prefix")
BOUND = rounding(torch.float32, 16, 1)
NAMED = {"experiments": ("attention_rows",)}


@pytest.fixture(scope="module", params=SEES_PAST)
def probed_clip(request):
    return counted.probed(counted.NETWORKS[request.param](), counted.settings())[0]


def keep(frame, tokens, q, k, ages, fold=1):
    """The rows of one call."""
    rows = Rows(frame, tokens)
    rows.add(ForwardPass(frame, 0, 1.0, "denoise"), "blocks.0.attn", Pattern(q, k, None, ages, fold=fold))
    return rows


def test_all_masses_of_a_row_add_up_to_one(probed_clip):
    rows = measure(probed_clip)["attention_rows"]
    whole = rows.mass.sum(("frame", "token")) + rows.own_mass + rows.other_mass
    assert_same(whole, np.ones(whole.shape), bound=BOUND)
    assert float(rows.mass.min()) >= 0 and float(rows.mass.max()) > float(1 / rows["keys"].min())


def test_rows_summed_by_frame_are_what_frame_attention_says(probed_clip):
    rows = measure(probed_clip)["attention_rows"]
    _, found = watched_rollout(
        probed_clip, probed_clip.networks["trained"], "teacher_forced", ("frame_attention",)
    )
    seen = found["frame_attention"].mass.sel(frame=rows.query_frame, step=rows.step.values)
    assert rows.point.values.tolist() == seen.point.values.tolist()
    seen = seen.reindex(lag=range(rows.query_frame + 1))
    mean = rows.mean("query").sum("token", min_count=1).transpose("clip", "layer", "head", "step", "frame")
    assert_same(mean.own_mass, seen.sel(lag=0), bound=BOUND)
    for frame in rows.frame.values:
        assert_same(mean.mass.sel(frame=frame), seen.sel(lag=rows.query_frame - frame), bound=BOUND)


def test_each_value_is_of_its_key():
    q, k = tiny.draw(1, 2, 3, 8), tiny.draw(1, 2, 10, 8, seed=1)
    ages = torch.tensor([-1, 2, 2, 2, 1, 1, 1, 0, 0, 0])
    rows = keep(2, 3, q, k, ages).result()
    p = (q @ k.mT * 8**-0.5).softmax(-1)[0]
    found = rows.mass.squeeze(("clip", "step", "layer"))
    assert_same(found.sel(frame=0), p[..., 1:4], bound=BOUND)
    assert_same(found.sel(frame=1), p[..., 4:7], bound=BOUND)
    assert_same(rows.other_mass.squeeze(), p[..., 0], bound=BOUND)
    assert int(rows["keys"][0]) == 10


def test_a_frame_without_a_key_for_each_token_has_no_row():
    ages = torch.tensor([3, 2, 2, 1, 1, 0, 0])  # the frame of age 3 is kept coarsely
    rows = keep(3, 2, tiny.draw(1, 1, 2, 8), tiny.draw(1, 1, 7, 8, seed=1), ages).result()
    assert rows.mass.isnull().all("token").squeeze().values.tolist() == [[True, False, False]] * 2
    assert float(rows.other_mass.min()) > 0


def test_a_row_along_time_sees_its_own_place_alone():
    tokens, frames = 4, 2
    q, k = tiny.draw(tokens, 1, 1, 8), tiny.draw(tokens, 1, frames, 8, seed=1)
    mass = keep(1, tokens, q, k, torch.tensor([1, 0]), fold=tokens).result().mass.squeeze()
    assert np.array_equal(np.isfinite(mass.values), np.eye(tokens, dtype=bool))
    p = (q @ k.mT * 8**-0.5).softmax(-1)[:, 0, 0, 0]
    assert_same(np.diagonal(mass.values), p, bound=BOUND)


def test_a_layer_that_sees_its_own_frame_alone_has_no_rows():
    assert keep(2, 2, tiny.draw(1, 1, 2, 8), tiny.draw(1, 1, 2, 8), torch.tensor([0, 0])).points == []


def test_only_the_first_clips_are_kept(probed_clip):
    assert measure(replace(probed_clip, index=CLIPS)) == {}
    assert set(measure(replace(probed_clip, index=CLIPS - 1))) == {"attention_rows"}


def test_the_rows_take_the_bytes_that_are_said():
    probed_clip, run = counted.probed(counted.dense(), counted.settings())
    stored = measure(probed_clip)["attention_rows"].mass
    assert stored.nbytes == row_bytes(run)
    assert kept_bytes(run) == run.cache_bytes(run.chunks) + stored.nbytes


def test_too_many_rows_are_kept_only_if_asked_for(monkeypatch):
    model = counted.dense()
    probed_clip, run = counted.probed(model, counted.settings())
    monkeypatch.setattr(attention_rows, "MOST_BYTES", row_bytes(run) - 1)
    assert measure(probed_clip) == {}
    assert evaluations(run).denoising == 0 == kept_bytes(run)
    asked, run = counted.probed(model, counted.settings(**NAMED))
    assert measure(asked) and evaluations(run).denoising > 0
    monkeypatch.setattr(attention_rows, "MOST_ASKED_BYTES", row_bytes(run) - 1)
    with pytest.raises(ValueError, match=rf"attention_rows.*{row_bytes(run):,} bytes.*--frames"):
        measure(asked)


def test_a_decoder_that_sees_its_own_frame_alone_has_none_and_says_why():
    make = counted.NETWORKS["separated, asking"]
    assert measure(counted.probed(make(), counted.settings())[0]) == {}
    with pytest.raises(ValueError, match="own frame alone.*--experiments"):
        measure(counted.probed(make(), counted.settings(**NAMED))[0])


def test_a_run_of_more_clips_has_the_rows_of_the_first_and_is_finished(tmp_path):
    model = tiny.checkpoint(tmp_path / "tiny.safetensors")
    words = ["--model", str(model), "--out", str(tmp_path / "runs"), "--run", "a", "--clips", f"{CLIPS + 1}"]
    words += ["--experiments", "attention_rows", "--frames", "4", "--context", "2", "--steps", "2"]
    assert main([*words, "--workers", "1"]) == 0
    file = tmp_path / "runs" / "tiny" / "a" / "attention_rows.nc"
    with xr.open_dataset(file, engine="netcdf4") as rows:
        assert rows["clip"].values.tolist() == list(range(CLIPS))
        assert rows.frame.values.tolist() == [0, 1, 2] and rows.step.values.tolist() == [0, 1]
    written = file.stat().st_mtime_ns
    assert main([*words, "--workers", "1"]) == 0
    assert file.stat().st_mtime_ns == written
