"""framelens latents: encodes videos and prompts into a file, decodes latents, writes a world's clips.

    framelens latents --model pipeline/ --videos a/ --prompts b.txt --out x.safetensors
    framelens latents --vae pipeline/ --decode x.safetensors --out shown/
    framelens latents --vae pipeline/ --preview runs/model/run
    framelens latents --world panorama --clips 9 --frames 10 --out x.safetensors

Probing then needs no VAE and no text encoder: framelens probe --model X --videos x.safetensors
"""

import argparse
import sys
from pathlib import Path

from framelens.records.checks import CLIPS, FRAMES, Rule, between, check, each, optional, spell_as_flag
from framelens.records.commands import command_line, exits_as, read_options
from framelens.records.runs import find_run

DEFAULT_SIZE, LARGEST = (480, 832), 16_384
USUAL_CLIPS = 9
"""Clips of a world: those of a usual probe, and one more as control."""
RULES: dict[str, Rule] = {
    "frames": FRAMES,
    "size": each(between(1, LARGEST)),
    "stride": FRAMES,
    "clips": optional(CLIPS),
    "rate": between(0.01, 1000),
    "longest": between(1, LARGEST),
}
"""Of the options, before anything is opened; the film format stores no other rates."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="framelens latents",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    what = parser.add_argument_group("what to do")
    what.add_argument(
        "--videos", type=Path, help="encode a video file, each of a folder, or those of a data set"
    )
    what.add_argument("--prompts", type=Path, help="embed the lines of a UTF-8 file: one per clip, or one")
    what.add_argument(
        "--decode", type=Path, metavar="FILE", help="decode a file of latents, or the samples of a run"
    )
    what.add_argument(
        "--preview",
        metavar="RUN",
        help="write decoded frames beside the samples of a run: model/run or a path",
    )
    what.add_argument("--world", help="write held-out clips of a world, with their prompts or actions")
    by = parser.add_argument_group("encoders")
    by.add_argument("--model", help="pipeline in diffusers' layout, or hub id: its vae/ and text_encoder/")
    by.add_argument("--vae", help="VAE or pipeline: folder, hub id, or file of FAR's DC-AE")
    by.add_argument("--text-encoder", help="text encoder or pipeline: folder or hub id")
    by.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    by.add_argument("--dtype", default="float32", help="type of the networks: float32, bfloat16 or float16")
    how = parser.add_argument_group("settings")
    how.add_argument(
        "--frames",
        type=int,
        default=21,
        help="latent frames per clip (default: 21, which are 81 pixel frames of Wan)",
    )
    how.add_argument(
        "--size",
        nargs=2,
        type=int,
        default=DEFAULT_SIZE,
        metavar=("HEIGHT", "WIDTH"),
        help="pixels that videos are cropped and resized to (default: 480 832)",
    )
    how.add_argument("--stride", type=int, default=1, help="take every STRIDE-th frame (default: 1)")
    how.add_argument("--clips", type=int, help="most clips to write (default: all, or one for each prompt)")
    how.add_argument("--negative", default="", help="prompt that guidance leads away from (default: empty)")
    how.add_argument("--format", default="mp4", choices=("mp4", "gif"), help="file format of decoded videos")
    how.add_argument(
        "--rate", type=float, default=16, help="frames per second of decoded videos (default: 16)"
    )
    how.add_argument(
        "--longest", type=int, default=192, help="longest side of previews in pixels (default: 192)"
    )
    parser.add_argument("--out", type=Path, help=".safetensors file to write; with --decode, a folder")
    return parser


@exits_as("latents", stopped="the same command resumes here")
def main(arguments: list[str]) -> int:
    """Exit status: 0 if everything is written, 2 if the request is not possible, 130 if stopped."""
    options = read_options(parser(), arguments)
    check(options, RULES, spell_as_flag)
    for path in _run(options, command_line("latents", arguments)):
        print(path)
    return 0


def _run(options: argparse.Namespace, command: str) -> list[Path]:
    """Runs the request; gives the written files."""
    making = options.videos is not None or options.prompts is not None
    tasks = (options.decode, options.preview, options.world)
    if making + sum(task is not None for task in tasks) != 1:
        raise ValueError(
            "expected --videos or --prompts (or both), --decode, --preview, or --world; give exactly one task"
        )
    if options.world is not None:
        return [_write_world(options, command)]
    if making:
        return [_make(options, command)]
    run = None if options.preview is None else _find_samples(options.preview)
    if run is None:
        _check_exists(options.decode)
    place = _find_part(options, "vae")
    from framelens.models.encoders.vae import open_vae
    from framelens.probes.latents.show import decode, preview

    vae = open_vae(place, options.device, options.dtype)
    if run is not None:
        return [preview(run, vae, options.longest, command)]
    return decode(options.decode, vae, options.out, options.format, options.rate, options.clips)


def _write_world(options: argparse.Namespace, command: str) -> Path:
    _check_out(options)
    from framelens.probes.latents.world import write_world

    return write_world(options.world, options.clips or USUAL_CLIPS, options.frames, options.out, command)


def _check_out(options: argparse.Namespace) -> None:
    if options.out is None or options.out.suffix != ".safetensors":
        raise ValueError(f"--out must be a .safetensors file, got {options.out}")


def _make(options: argparse.Namespace, command: str) -> Path:
    _check_out(options)
    from framelens.videos.datasets import open_dataset

    for path in (options.videos, options.prompts):
        if path is not None and (path == options.prompts or open_dataset(str(path)) is None):
            _check_exists(path)
    from framelens.probes.latents.make import Request, make
    from framelens.records.lock import hold_folder

    with hold_folder(options.out, "--out gives another file"):
        request = Request(
            videos=options.videos,
            prompts=options.prompts,
            negative=options.negative,
            vae=_find_part(options, "vae") if options.videos else None,
            text_encoder=_find_part(options, "text_encoder") if options.prompts else None,
            frames=options.frames,
            size=tuple(options.size),
            stride=options.stride,
            clips=options.clips,
            device=options.device,
            dtype=options.dtype,
        )
        return make(request, options.out, command)


def _find_samples(run: str) -> Path:
    """The folder of a run, or one that holds samples.nc."""
    folder = Path(run) if Path(run).is_dir() else find_run(run)
    if not (folder / "samples.nc").exists():
        raise FileNotFoundError(f"{folder} has no samples.nc; give the folder of a run with samples")
    return folder


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give an existing file or folder")


def _find_part(options: argparse.Namespace, name: str) -> str:
    """The place of that part: its own option, or the pipeline of --model or of its transformer/ folder."""
    asked = getattr(options, name) or options.model
    if not asked:
        raise ValueError(f"give --{name.replace('_', '-')}, or --model with a pipeline that has {name}/")
    folder = Path(asked)
    return str(folder.parent) if not (folder / name).is_dir() and (folder.parent / name).is_dir() else asked


if __name__ == "__main__":
    sys.exit(main())
