"""Walks through maps of rooms, played by the Doom engine (ViZDoom with Freedoom) without a window.

with open_game(plans) as game:
    frames = walk(game, number, plans[number], rng, 16)
"""

import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from framelens.records.commands import block_interrupts
from framelens.records.extras import extra
from framelens.videos.worlds._doom_maps import Rooms, pack_wad, udmf
from framelens.videos.worlds._doom_views import (
    COLUMNS,
    NATIVE_COLUMNS,
    NATIVE_ROWS,
    ROWS,
    SCALE,
    describe_views,
    free_way,
)

ACTIONS = ("stay", "left", "right", "forward", "back")
REVERSE = (0, 2, 1, 4, 3)
TURN = 30  # degrees a frame
TICS, PRESSED = 16, 10  # of the engine in a frame, and for how many of them a step's button is held
STEP = 48.0  # map units that a step takes, or less
READY = 8  # tics until the engine takes orders


@contextmanager
def open_game(plans: list[Rooms]) -> Iterator[Any]:
    """The engine with these maps. MissingPackage without vizdoom."""
    with extra("worlds"):
        import vizdoom

    with tempfile.TemporaryDirectory() as folder:
        wad = Path(folder) / "rooms.wad"
        wad.write_bytes(pack_wad({f"M{number}": udmf(plan) for number, plan in enumerate(plans)}))
        game = vizdoom.DoomGame()
        game.set_doom_config_path(str(Path(folder) / "engine.ini"))
        game.set_doom_game_path(str(Path(vizdoom.__file__).parent / "freedoom2.wad"))
        game.set_doom_scenario_path(str(wad))
        game.set_doom_map("M0")
        _configure(game, vizdoom)
        try:
            # The engine makes a folder where it starts. It outlives Ctrl-C, so that a training which then
            # finishes its step can also finish the clips of that step.
            with chdir(folder), block_interrupts():
                game.init()
            yield game
        finally:
            game.close()


def _configure(game: Any, vizdoom: Any) -> None:
    """What is shown, what can be done, and what is known of each frame."""
    game.add_game_args("+movebob 0")
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    for part in ("hud", "weapon", "crosshair", "messages"):
        getattr(game, f"set_render_{part}")(False)
    game.set_labels_buffer_enabled(True)
    game.set_mode(vizdoom.Mode.PLAYER)
    button, variable = vizdoom.Button, vizdoom.GameVariable
    game.set_available_buttons([button.TURN_LEFT_RIGHT_DELTA, button.MOVE_FORWARD, button.MOVE_BACKWARD])
    game.set_available_game_variables([variable.POSITION_X, variable.POSITION_Y, variable.ANGLE])


def walk(game: Any, number: int, plan: Rooms, rng: np.random.Generator, frames: int) -> dict[str, np.ndarray]:
    """The frames of one walk and their state; the random numbers decide where it goes."""
    game.set_doom_map(f"M{number}")
    game.set_seed(number + 1)
    game.new_episode()
    game.make_action([0, 0, 0], READY)
    screens, poses, shown, actions = [], [], [], [0]
    heading = int(rng.integers(1, 5))
    for frame in range(frames):
        if frame:
            action, heading = choose_action(rng, heading, plan, poses[-1])
            actions.append(action)
            _act(game, action)
        state = game.get_state()
        screens.append(state.screen_buffer.copy())
        poses.append(np.array(state.game_variables))
        shown.append(_which_objects(state, plan))
    pose = np.stack(poses)
    return {
        "video": shrink(np.stack(screens)),
        "actions": np.array(actions),
        "position": pose[:, :2],
        "angle": pose[:, 2],
        "objects": np.broadcast_to(plan.objects, (frames, *plan.objects.shape)),
        **describe_views(plan, pose, np.stack(shown)),
    }


def choose_action(rng: np.random.Generator, heading: int, plan: Rooms, pose: np.ndarray) -> tuple[int, int]:
    """The next action and where the walk is heading: go on (55 %), back (30 %), else (10 %), stay (5 %).

    "Else" turns where it walked, and walks where it turned. A step that a wall or an object would stop
    becomes a turn. Both numbers are always drawn.
    """
    chance, side = rng.random(), int(rng.integers(2))
    if chance < 0.05:
        return 0, heading
    if chance < 0.35:
        heading = REVERSE[heading]
    elif chance < 0.45:
        heading = (3 if heading < 3 else 1) + side
    if heading >= 3 and free_way(plan, pose, pose[2] + (0 if heading == 3 else 180)) < STEP:
        heading = 1 + side
    return heading, heading


def shrink(screens: np.ndarray) -> np.ndarray:
    """uint8 frames [f 3 24 32] from the engine's [f 120 160 3]: means over squares of five pixels."""
    cells = screens.reshape(len(screens), ROWS, SCALE, COLUMNS, SCALE, 3)
    total = cells.sum(4, dtype=np.uint16).sum(2)
    return ((total + SCALE**2 // 2) // SCALE**2).astype(np.uint8).transpose(0, 3, 1, 2)


def _act(game: Any, action: int) -> None:
    turn = TURN / TICS * ((action == 2) - (action == 1))
    keys = [turn, int(action == 3), int(action == 4)]
    game.make_action(keys, PRESSED)
    game.make_action([turn, 0, 0], TICS - PRESSED)


def _which_objects(state: Any, plan: Rooms) -> np.ndarray:
    """1 + the number of the object that each pixel shows, or 0."""
    shown = np.zeros((NATIVE_ROWS, NATIVE_COLUMNS), np.uint8)
    for label in state.labels:
        apart = np.linalg.norm(
            plan.objects[:, 1:] - (label.object_position_x, label.object_position_y), axis=1
        )
        if apart.min() < 1:
            shown[state.labels_buffer == label.value] = 1 + apart.argmin()
    return shown
