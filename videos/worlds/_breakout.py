"""Breakout on the Atari 2600, played by a simple rule (Arcade Learning Environment, its game file inside).

    game = open_game()
    clip = play(game, np.random.default_rng(0), 24)

Positions come from the console's memory: byte 99 is the ball's column + 49, 101 its row - 9 (0 without a
ball), 72 the paddle's column + 47. Anand et al. 2019 (arXiv 1906.08226) name these bytes; the offsets are
those that the pixels show (tests/test_atari.py). Bricks are read from the picture.
"""

from typing import Any

import numpy as np

from framelens.records.extras import extra

ACTIONS = ("stay", "fire", "right", "left")
TICS = 4  # of the console in a frame: the usual frame skip
TOP, LEFT, SIDE, SCALE = 50, 8, 144, 4  # the part of the 210 x 160 picture that is shown, how much smaller
PIXELS = SIDE // SCALE
BRICK_TOP, BRICK_ROWS, BRICK_COLUMNS, BRICK_HEIGHT, BRICK_WIDTH = 57, 6, 18, 6, 8
BALL_HEIGHT, BALL_WIDTH, PADDLE_WIDTH = 4, 2, 16
ROUNDS = (10, 150)  # frames that are played before a clip begins
NO_BALL = -1.0


def open_game() -> Any:
    """The console with the game. MissingPackage without ale-py."""
    with extra("worlds"):
        from ale_py import ALEInterface, LoggerMode, roms

    ALEInterface.setLoggerMode(LoggerMode.Error)
    game = ALEInterface()
    game.setFloat("repeat_action_probability", 0.0)
    game.setInt("random_seed", 1)
    path = roms.get_rom_path("breakout")
    if path is None:
        raise ValueError("this ale-py has no game called breakout: install 0.11 or newer")
    game.loadROM(path)
    return game


def play(game: Any, rng: np.random.Generator, frames: int) -> dict[str, np.ndarray]:
    """The frames of one clip from a new game, with their actions and state."""
    game.reset_game()
    for _ in range(int(rng.integers(*ROUNDS))):
        _advance(game, choose_action(rng, game.getRAM()))
    screens, actions, states = [], [0], []
    for frame in range(frames):
        if frame:
            actions.append(choose_action(rng, game.getRAM()))
            _advance(game, actions[-1])
        screens.append(game.getScreenRGB())
        states.append(_state(game.getRAM(), screens[-1], game.lives()))
    known = {name: np.stack([state[name] for state in states]) for name in states[0]}
    return {"video": shrink(np.stack(screens)), "actions": np.array(actions), **known}


def choose_action(rng: np.random.Generator, memory: np.ndarray) -> int:
    """Towards the ball (80 %), else any action. Without a ball: fire."""
    chance, other = rng.random(), int(rng.integers(len(ACTIONS)))
    if memory[101] == 0:
        return 1
    if chance < 0.2:
        return other
    apart = int(memory[99]) - int(memory[72]) - PADDLE_WIDTH // 2  # of ball and the paddle's middle
    return 0 if abs(apart) < 5 else 2 if apart > 0 else 3


def shrink(screens: np.ndarray) -> np.ndarray:
    """uint8 frames [f 3 36 36] from the console's [f 210 160 3]: the brightest of squares of four pixels.

    By colour channel. In means the ball, of 2 x 4 pixels, would hardly be seen.
    """
    cells = screens[:, TOP : TOP + SIDE, LEFT : LEFT + SIDE].reshape(-1, PIXELS, SCALE, PIXELS, SCALE, 3)
    return cells.max((2, 4)).transpose(0, 3, 1, 2)


def _advance(game: Any, action: int) -> None:
    if game.game_over():
        game.reset_game()
    legal = game.getMinimalActionSet()  # stay, fire, right, left
    for _ in range(TICS):
        game.act(legal[action])


def _state(memory: np.ndarray, screen: np.ndarray, lives: int) -> dict[str, np.ndarray]:
    row, column = int(memory[101]) + 9, int(memory[99]) - 49
    middle = np.array([row + (BALL_HEIGHT - 1) / 2, column + (BALL_WIDTH - 1) / 2])
    is_shown = memory[101] != 0 and TOP <= row <= TOP + SIDE - BALL_HEIGHT
    left = int(memory[72]) - 47
    ends = np.clip([left, left + PADDLE_WIDTH], LEFT, LEFT + SIDE)
    return {
        "ball": to_frame(middle) if is_shown else np.full(2, NO_BALL),
        "paddle": to_frame(np.array([0, ends.mean() - 0.5]))[1],
        "bricks": bricks_of(screen),
        "lives": np.array(lives),
    }


def to_frame(place: np.ndarray) -> np.ndarray:
    """Row and column in a small frame of a place in the console's picture; 0 is a pixel's middle."""
    return (place - (TOP, LEFT) + 0.5) / SCALE - 0.5


def bricks_of(screen: np.ndarray) -> np.ndarray:
    """Which bricks stand [6 18]: those lit at both ends, more than the narrow ball can light."""
    rows = BRICK_TOP + BRICK_HEIGHT // 2 + BRICK_HEIGHT * np.arange(BRICK_ROWS)
    columns = LEFT + BRICK_WIDTH * np.arange(BRICK_COLUMNS)
    ends = [screen[np.ix_(rows, columns + end)].max(-1) > 0 for end in (1, BRICK_WIDTH - 2)]
    return ends[0] & ends[1]
