"""The player of a page: clips as looped pictures, the truth beside what the model generates.

    parts = player(run)      # pieces of HTML; empty where the run has no samples

A film is one picture with all its frames side by side, which the style sheet shows one after the other. So
all films of a clip stay in step, the page needs no script for them, and print shows the last frame.
"""

import base64

import numpy as np
import seaborn

from framelens.analyses.places import even_places
from framelens.reports.drawing import colours
from framelens.reports.page.film import Film, to_pixels
from framelens.reports.page.kept_frames import planned_films
from framelens.reports.page.markup import Html, fill, join
from framelens.reports.plots.samples import pictures, read_samples
from framelens.reports.runs import Run

MOST_CLIPS = 8
MOST_FRAMES = 48
MOST_BYTES = 2_000_000
"""Of all films of the player; clips that would exceed it are left out."""
DARK = 0.5
"""The error, as a share of the range of a pixel, that has the darkest colour of an error map."""
ABOUT = (
    "Frames with a dark border were given. Error maps show the mean absolute difference from the truth: "
    "light is none, dark is half of the range of a pixel or more."
)
TITLES = {
    "truth": "truth",
    "teacher_forced": "generated, true past given",
    "free_running": "generated, own past",
}


def player(run: Run) -> list[Html]:
    """The section with every clip's films, its chooser and its error maps."""
    if run.missing(("samples",)):
        return []
    clips, size, left_out = [], 0, 0
    by_mode, previews = read_samples(run)
    wanted = min(next(iter(by_mode.values())).sizes["clip"], MOST_CLIPS)
    for clip in range(wanted):
        films = films_of(by_mode, previews, clip, int(run.manifest.settings["context"]))
        films += planned_films(run, clip)
        maps = error_maps(films)
        sprites = [(film, film.sprite()) for film in [*films, *maps]]
        size += sum(len(sprite) for _, sprite in sprites) * 4 // 3
        if size > MOST_BYTES and clips:
            left_out = wanted - clip
            break
        clips.append(_clip(clip, sprites[: len(films)], sprites[len(films) :]))
    chooser = join(
        fill('<input type="radio" name="clip" id="clip-{0}"{1}><label for="clip-{0}">{0}</label>',
             number, Html(" checked") if number == 0 else "")
        for number in range(len(clips))
    )  # fmt: skip
    note = f" {left_out} more clips are left out to keep this page small." if left_out else ""
    return [
        fill(
            '<section class="player" id="player" aria-label="Generated videos">\n'
            '<p class="quiet"><span>Clip</span></p>\n{}\n<div class="clips">\n{}\n</div>\n'
            '<p class="quiet">{}{}</p>\n</section>',
            chooser,
            join(clips),
            ABOUT,
            note,
        )  # fmt: skip
    ]


def films_of(by_mode: dict, previews: dict, clip: int, context: int) -> list[Film]:
    """The truth and each mode's video of one clip, at most MOST_FRAMES frames of it."""
    videos = pictures(by_mode, previews, clip)
    films = []
    for name, video in videos.items():
        video = video.isel(frame=even_places(video.sizes["frame"], MOST_FRAMES))
        given = np.asarray(video.frame.values) < context
        if name in by_mode:  # only probed frames are generated where the true past is given
            psnr = by_mode[name].psnr.isel(clip=clip).reindex(frame=video.frame)
            given = given | ~np.isfinite(psnr.values)
        films.append(Film(TITLES.get(name, name.replace("_", " ")), to_pixels(video), given))
    return films


def error_maps(films: list[Film]) -> list[Film]:
    """For each generated film the mean absolute difference from the truth over channels, as colours."""
    truth, *generated = films
    palette = np.asarray(seaborn.color_palette(colours.SEQUENTIAL, 256)) * 255
    maps = []
    for film in generated:
        error = np.abs(film.frames.astype(float) - truth.frames).mean(-1) / 255
        shade = np.clip(error / DARK * 255, 0, 255).astype(int)
        maps.append(Film(f"error: {film.title}", palette[shade].astype(np.uint8), film.was_given))
    return maps


def _clip(number: int, films: list[tuple[Film, bytes]], maps: list[tuple[Film, bytes]]) -> Html:
    """The films of one clip, and its error maps folded."""
    error = fill(
        '<details><summary>error maps</summary><div class="films">{}</div></details>',
        join(film_figure(number, film, sprite) for film, sprite in maps),
    )
    shown = join(film_figure(number, film, sprite) for film, sprite in films)
    return fill('<div class="clip"><div class="films">{}</div>{}</div>', shown, error if maps else "")


def film_figure(number: int, film: Film, sprite: bytes) -> Html:
    """One film with its title; `number` is that of its clip."""
    height, width = film.shape
    return fill(
        '<figure><div class="film" role="img" aria-label="Clip {}, {}: {} frames in a loop" '
        'style="--frames:{};--seconds:{}s;aspect-ratio:{}/{};max-width:{}px;'
        'background-image:url(data:image/webp;base64,{})"></div><figcaption>{}</figcaption></figure>',
        number, film.title, len(film.frames), len(film.frames), f"{0.25 * len(film.frames):g}", width, height,
        max(width, 180), base64.b64encode(sprite).decode("ascii"), film.title,
    )  # fmt: skip
