"""framelens evaluate --model dense-tiles: how well a model predicts held-out clips.

The next frame, sampled from its true past, beside a copy of the last frame and the mean frame of the past;
in a world with memory also by when the place that a pixel shows was last in view. Then a free run from the
first frames: its drift, its motion, how much two seeds differ and, where the world's state can be read off a
frame, its distance from the true one. docs/training.md says what each score is.

    framelens evaluate --model dense-tiles runs/train/dense-tiles-cut --cut-from 5

Scores every model whole and with layers 5 and deeper cut off from the past: what such a cut costs before and
after a fine-tune under it.

    framelens evaluate --model dense-tiles --fetch-once 6

Scores every model also with the past fetched once per frame, at its first denoising step. Only the first 6
layers see the past; `all` or a plan.json may be given instead (models/variants/fetch_once.py).

    framelens evaluate --model dense-tiles --seed 1 --out scores.json

Writes the scores with the command, the seed, all settings, the models' files and hashes, and versions.

    framelens evaluate --model dense-tiles --context 36 --predict 264 --best-of 4 --clips 256

Scores long predictions as TECO's protocol does: PSNR, SSIM and, with --lpips, LPIPS of the best of four free
runs of each clip, in the mean and by frame.

    framelens evaluate --checkpoints runs/train/a --clips 16

Scores every kept checkpoint of a training into runs/train/a/scores.json (training/kept_checkpoints.py).
"""

import argparse
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from framelens.records.checks import (
    CLIPS,
    FRAMES,
    GUIDANCE,
    SEED,
    STEPS,
    Rule,
    check,
    each,
    optional,
    spell_as_flag,
)
from framelens.records.commands import command_line, exits_as, read_options
from framelens.records.progress import progress_bar
from framelens.training.fetching import FETCHING_RULES, add_fetching_options
from framelens.training.kept_checkpoints import CHECKPOINT_RULES, add_checkpoint_options, score_checkpoints
from framelens.training.protocol import PROTOCOL_RULES, add_protocol_options, frames_of, parse_steps

if TYPE_CHECKING:  # they import torch or numpy, which --help does without
    import framelens.diffusion.contract
    from framelens.training.score_files import NetworkScores
    from framelens.training.scorers import Scorers

USUAL_MODEL = "dense-tiles"
USUAL_STEPS = 25
RULES: dict[str, Rule] = (
    {
        "clips": CLIPS,
        "steps": optional(each(STEPS)),
        "context": FRAMES,
        "frames": optional(FRAMES),
        "guidance": GUIDANCE,
        "seed": SEED,
    }
    | FETCHING_RULES
    | PROTOCOL_RULES
    | CHECKPOINT_RULES
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="framelens evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [options]",
    )
    sampling = parser.add_argument_group("sampling")
    parser.add_argument(
        "--model", nargs="+", help=f"shipped models or paths of checkpoints (default: {USUAL_MODEL})"
    )
    parser.add_argument(
        "--cut-from", type=int, metavar="LAYER",
        help="score dense models also with this layer and all deeper ones cut off from the past",
    )  # fmt: skip
    add_fetching_options(parser)
    add_checkpoint_options(parser)
    parser.add_argument("--clips", type=int, default=32, help="held-out clips")
    parser.add_argument(
        "--steps", metavar="N", help="denoising steps per frame, or 4,2 for 4 steps of the first generated "
        f"chunk and 2 of later ones (default: the model's own, else {USUAL_STEPS})",
    )  # fmt: skip
    parser.add_argument("--context", type=int, default=4, help="frames before the first predicted one")
    parser.add_argument("--frames", type=int, help="frames of a clip (default: as in training)")
    parser.add_argument(
        "--videos", help="a world, a data set, or a path of latents (default: as in training)"
    )
    add_protocol_options(parser)
    sampling.add_argument("--window", type=int, help="past frames in view (default: as the model has it)")
    sampling.add_argument("--sink", type=int, help="first frames that stay in view of the window")
    sampling.add_argument("--guidance", type=float, default=1.0, help="scale; 1 is none (default: 1)")
    sampling.add_argument(
        "--negative", choices=("condition", "context"), default="condition",
        help="what guidance moves away from: no condition, or a disturbed past (separated models)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="decides the noise of the samples (default: 0)")
    parser.add_argument("--out", type=Path, help="JSON file for the scores and what they are of")
    sampling.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    return parser


@exits_as("evaluate")
def main(arguments: list[str]) -> int:
    """Exit status: 0, or 2 when the request cannot be met. The last line is JSON."""
    options = read_options(parser(), arguments)
    options.steps = parse_steps(options.steps)
    check(options, RULES, spell_as_flag)
    if options.out is not None and options.out.is_dir():
        raise ValueError(f"--out {options.out} is a folder; give the path of a JSON file")
    from framelens.training.score_files import format_frames, format_table, identify, write_scores
    from framelens.training.scored_models import open_models
    from framelens.training.scorers import open_scorers

    scorers, command = open_scorers(options), command_line("evaluate", arguments)
    if options.checkpoints is not None:
        score = partial(evaluate, options=options, scorers=scorers)
        print(json.dumps(score_checkpoints(options, score, command)))
        return 0
    options.model = options.model or [USUAL_MODEL]
    networks = open_models(options)
    scored = {
        name: evaluate(networks[name], options, scorers)
        for name in progress_bar(networks, unit="model", leave=False)
    }
    print(format_table({name: scores.measures for name, scores in scored.items()}))
    if options.best_of is not None:
        print(format_frames({name: scores.by_frame for name, scores in scored.items()}))
    means = {name: scores.means for name, scores in scored.items()}
    print(json.dumps(means if len(means) > 1 else next(iter(means.values()))))
    if options.out is not None:
        identities = {name: identify(networks[name]) for name in options.model}
        measures = {name: scores.describe() for name, scores in scored.items()}
        write_scores(options, identities, measures, next(iter(scored.values())).scorers, command)
    return 0


def evaluate(
    network: "framelens.diffusion.contract.CausalDiffuser",
    options: argparse.Namespace,
    scorers: "Scorers",
) -> "NetworkScores":
    """The scores of one network, mean over frames and clips, and those of each frame."""
    from framelens.diffusion.choose_sampling import choose_sampling
    from framelens.diffusion.contract import traits
    from framelens.diffusion.guidance import guide
    from framelens.models.loading.memory import require_room_for_clips
    from framelens.training.action_readout import TRAINING_CLIPS, fit_actions, score_actions
    from framelens.training.clip_scores import (
        difference_by_clip,
        fit_range,
        psnr_by_frame,
        score_best_of,
        score_free_run,
        score_next_frame,
        score_perceptual,
        score_state,
    )
    from framelens.training.measures import average
    from framelens.training.score_files import NetworkScores
    from framelens.training.scores import FIRST_CLIP, FREE, sample_frames
    from framelens.training.source import open_source, require_fit, require_held_out

    source = traits(network).source
    context, frames, runs = options.context, frames_of(options, source), options.best_of or 0
    world = open_source(options.videos or source.videos)
    require_fit(world, options.videos or source.videos, network)
    require_held_out(world, options.clips)
    require_room_for_clips(options.clips * max(1, runs), frames, scorers.shape_of(world.SHAPE), "--clips")
    first, steps = (None, None) if options.steps is None else (options.steps[0], options.steps[-1])
    first = None if first == steps else first
    sampling = choose_sampling(network, steps, USUAL_STEPS, first)
    sampler = guide(network, options.guidance, options.negative)
    clips = world.clips(range(FIRST_CLIP, FIRST_CLIP + options.clips), frames)
    shown, features = replace(clips, video=scorers.decode(clips.video)[0]), scorers.features
    true = None if features is None else features.read_true(fit_range(shown)[0], context)
    asked = (sampler, clips, context, sampling)
    sampled, free = sample_frames(*asked, options.seed, options.device).values()
    others = [
        sample_frames(*asked, options.seed + run, options.device, FREE)["free_running"]
        for run in range(1, max(2, runs))
    ]
    actions = {}
    if clips.actions is not None:
        known, _ = fit_range(world.clips(range(TRAINING_CLIPS), frames))
        own, (run,) = fit_range(clips, free)
        actions = score_actions(fit_actions(known), run, own, context)
    clips, (sampled, free, *others) = fit_range(shown, *scorers.decode(sampled, free, *others))
    result = score_next_frame(sampled, clips, context) | score_free_run(free, clips, context)
    result["free run: mean absolute difference of two seeds"] = average(difference_by_clip(free, others[0]))
    by_frame = {"PSNR of a free run (dB)": psnr_by_frame(free, clips, context)}
    if scorers.lpips is not None:
        result |= score_perceptual(scorers.lpips, sampled, free, clips, context)
    if runs:
        best, best_by_frame = score_best_of([free, *others][:runs], clips, context, scorers.lpips)
        result, by_frame = result | best, by_frame | best_by_frame
    result |= actions
    if hasattr(world, "state_error"):
        result |= score_state(world, sampled, free, clips, context)
    if features is not None and true is not None:
        result |= features.score(free, true, clips, context)
    result = {name: measure for name, measure in result.items() if measure.clips}
    return NetworkScores(result, by_frame, scorers.describe(true))


if __name__ == "__main__":
    sys.exit(main())
