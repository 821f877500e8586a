"""What a linear probe may read of the frames of the Doom world, at each token and for the whole frame."""

import numpy as np

from framelens import videos
from framelens.videos.targets import Target, grid, keep_where, of_whole_frame, token_centres
from framelens.videos.worlds._doom_game import ACTIONS
from framelens.videos.worlds._doom_maps import PASSAGE, WALLS
from framelens.videos.worlds._doom_views import COLUMNS, ROWS

LOOKS = {
    "wall in view before": (lambda age: age == 1, "in view", "in view in the last frame too"),
    "wall seen earlier": (lambda age: age > 1, "out of view", "out of view since before that"),
    "wall never seen": (lambda age: age == 0, "control", "never in view: knowable from this frame alone"),
}


def targets_of(clips: videos.Clips, patch: int) -> dict[str, Target]:
    """The targets by name, for tokens of `patch` pixels; a token's state is that of its middle pixel."""
    at = grid(token_centres(ROWS, patch).astype(int), token_centres(COLUMNS, patch).astype(int))
    wall, age, depth, covers = (
        clips.state[name][:, :, at[:, 0], at[:, 1]] for name in ("wall", "age", "depth", "object_here")
    )
    is_panel, age = (wall >= 0) & (wall != PASSAGE), age.astype(float)
    walls = {
        name: Target(
            keep_where(wall, is_panel & chosen(age)),
            group,
            f"texture of a wall that was {text}",
            classes=WALLS,
        )
        for name, (chosen, group, text) in LOOKS.items()
    }
    return (
        walls
        | {
            "seen before or not": Target(
                keep_where(age > 0, age != 1),
                "out of view",
                "whether a place that enters the view was ever in view",
                classes=("never", "earlier"),
            ),
            "frames since seen": Target(
                keep_where(age, age > 1),
                "out of view",
                "age of the last view of a place that comes back",
                "frames",
            ),
            "depth": Target(
                keep_where(np.log2(depth), covers == 0),
                "in view",
                "logarithm of the distance to what the token shows",
            ),
            "object here": Target(
                keep_where(covers > 0, covers >= 0),
                "in view",
                "whether the token shows an object",
                classes=("no", "yes"),
            ),
        }
        | _of_the_pose(clips)
    )


def _of_the_pose(clips: videos.Clips) -> dict[str, Target]:
    """Targets of the whole frame."""
    angle, position = np.deg2rad(clips.state["angle"]), clips.state["position"]
    turned = angle - angle[:, :1]
    gone = position - position[:, :1]
    cos, sin = np.cos(angle[:, :1]), np.sin(angle[:, :1])
    way = np.stack([cos * gone[..., 0] + sin * gone[..., 1], sin * gone[..., 0] - cos * gone[..., 1]], -1)
    place = np.concatenate([position, 100 * np.cos(angle)[..., None], 100 * np.sin(angle)[..., None]], -1)
    return {
        "action": Target(
            of_whole_frame(np.asarray(clips.actions)[..., None]),
            "motion",
            "the agent's move that led to the frame; the model is given it",
            classes=ACTIONS,
        ),
        "turned since the start": Target(
            of_whole_frame(np.stack([np.cos(turned), np.sin(turned)], -1)),
            "motion",
            "cosine and sine of the angle between the first view and this one",
        ),
        "way from the start": Target(
            of_whole_frame(way), "motion", "ahead and to the right, as the first view sees it", "map units"
        ),
        "place on the map": Target(
            of_whole_frame(place),
            "control",
            "x, y and 100 times cosine and sine of the angle; the map is another one in each clip",
        ),
    }
