"""Maps for the Doom engine: four rooms in a square with passages between them, written as a WAD file.

    plan = draw_rooms(np.random.default_rng(0))
    path.write_bytes(pack_wad({"C000": udmf(plan)}))

A room has walls of eight panels, each with a texture of its own, a floor, and one object. Coordinates are map
units: x to the east, y to the north; the format is UDMF (Universal Doom Map Format 1.1, "zdoom" namespace).
"""

import struct
from dataclasses import dataclass

import numpy as np

ROOM, GAP, SIDE = 256, 32, 2  # a room's side, the thickness of walls, rooms along each side of the map
PITCH, PANEL = ROOM + GAP, ROOM // 2
HEIGHT, EYE, INSET = 128, 41, 52  # of the ceiling and of the eyes over the floor; objects from the walls
BETWEEN = ((0, 1, True), (2, 3, True), (0, 2, False), (1, 3, False))  # two rooms, and whether side by side
WALLS = (
    "STARTAN3", "STWALL", "A-CONCTE", "REDWALL1", "ZZWOLF12", "AQLITE11", "A-CAMO1", "CEMENT9",
    "ZZWOLF9", "AQLITE09", "SILVER2", "METAL2BD", "SKSNAKE4", "ZDOORB1", "AQLITE15", "AQLITE22",
)  # fmt: skip
"""Names of Freedoom's textures that differ in colour and pattern."""
PASSAGE = len(WALLS)
"""The wall number of the frame of a passage, which is STONE2 everywhere."""
FLOORS = ("FLOOR4_8", "GRASS1", "FLAT14", "FLAT5_3", "FLOOR7_1", "FLOOR0_1")
OBJECTS = {
    "green pillar": 30,
    "red pillar": 32,
    "tech pillar": 48,
    "lamp": 2028,
    "candelabra": 35,
    "tree": 43,
}
"""Objects that stand still, with their numbers in the engine."""


@dataclass(frozen=True)
class Rooms:
    """One map. Rooms are numbered row by row from the south-west."""

    walls: np.ndarray
    """[n 4]: x and y of both ends of each solid wall, its visible side to the right."""
    textures: np.ndarray
    """[n]: the index into WALLS of each, or PASSAGE."""
    passages: np.ndarray
    """[d 4]: lowest x and y, highest x and y of each passage."""
    floors: np.ndarray
    """[rooms]: indices into FLOORS."""
    objects: np.ndarray
    """[rooms 3]: the index into OBJECTS, x, y."""
    start: tuple[int, int, int]
    """x, y and angle (degrees, counterclockwise from the east) of the player."""


def draw_rooms(rng: np.random.Generator, turn: int) -> Rooms:
    """A map at random; the player starts in a room's middle part, at a multiple of `turn` degrees."""
    rooms = SIDE * SIDE
    open_, halves = rng.permutation(4)[: rng.integers(3, 5)], rng.integers(2, size=4)
    passages, holes = [], set()
    for index in open_:
        first, second, is_beside = BETWEEN[index]
        passages.append(_passage(first, is_beside, int(halves[index])))
        sides = ("east", "west") if is_beside else ("north", "south")
        holes |= {(first, sides[0], int(halves[index])), (second, sides[1], int(halves[index]))}
    walls = [wall for room in range(rooms) for wall in _panels(room, holes)]
    textures = _textures(rng, len(walls))
    frames = [
        line
        for passage, index in zip(passages, open_, strict=True)
        for line in _frame(passage, BETWEEN[index][2])
    ]
    places = rng.choice([INSET, ROOM - INSET], size=(rooms, 2)) + np.array([_corner(r) for r in range(rooms)])
    start = rng.integers(ROOM // 2 - 40, ROOM // 2 + 40, size=2) + _corner(int(rng.integers(rooms)))
    return Rooms(
        np.array(walls + frames, float),
        np.concatenate([textures, np.full(len(frames), PASSAGE)]),
        np.array(passages, float),
        rng.integers(len(FLOORS), size=rooms),
        np.column_stack([rng.integers(len(OBJECTS), size=rooms), places]),
        (int(start[0]), int(start[1]), int(rng.integers(360 // turn)) * turn),
    )


def udmf(plan: Rooms) -> str:
    """The map as text. Each line belongs to the room or passage on its right."""
    floors = [FLOORS[floor] for floor in plan.floors] + ["FLOOR4_8"] * len(plan.passages)
    sectors = [
        f'sector{{heightfloor=0;heightceiling={HEIGHT};texturefloor="{floor}";textureceiling="CEIL3_5";'
        "lightlevel=224;}"
        for floor in floors
    ]
    numbers = list(OBJECTS.values())
    things = [(x, y, 0, numbers[kind]) for kind, x, y in plan.objects] + [(*plan.start, 1)]
    skills = "".join(f"skill{level}=true;" for level in range(1, 6))
    placed = [f"thing{{x={x};y={y};angle={a};type={n};{skills}single=true;}}" for x, y, a, n in things]
    return "\n".join(['namespace="zdoom";', *_lines(plan), *sectors, *placed])


def _lines(plan: Rooms) -> list[str]:
    """Vertices, lines and their sides: the walls, and the borders between rooms and passages."""
    borders = _borders(plan)
    ends = [*plan.walls, *(border for border, _, _ in borders)]
    fronts = [*_sectors(plan), *(front for _, front, _ in borders)]
    backs = [-1] * len(plan.walls) + [back for _, _, back in borders]
    textures = [WALLS[t] if t < PASSAGE else "STONE2" for t in plan.textures] + ["-"] * len(borders)
    out, sides = [], 0
    for index, (x0, y0, x1, y1) in enumerate(ends):
        is_border = backs[index] >= 0
        kind = f"sideback={sides + 1};twosided=true;" if is_border else "blocking=true;"
        out += [f"vertex{{x={x0:g};y={y0:g};}}", f"vertex{{x={x1:g};y={y1:g};}}"]
        out.append(f"linedef{{v1={2 * index};v2={2 * index + 1};sidefront={sides};{kind}}}")
        for sector in (fronts[index], backs[index])[: 1 + is_border]:
            out.append(f'sidedef{{sector={sector};texturemiddle="{textures[index]}";}}')
            sides += 1
    return out


def _borders(plan: Rooms) -> list[tuple[tuple[float, ...], int, int]]:
    """The two open sides of each passage, the passage to their right, and the sectors to right and left."""
    found = []
    for number, (left, low, right, high) in enumerate(plan.passages):
        ends = ((right, low, left, low), (left, high, right, high))
        if high - low > right - left:
            ends = ((left, low, left, high), (right, high, right, low))
        for x0, y0, x1, y1 in ends:
            beyond = (x0 + x1) / 2 - np.sign(y1 - y0), (y0 + y1) / 2 + np.sign(x1 - x0)
            found.append(((x0, y0, x1, y1), SIDE * SIDE + number, _room_at(*beyond)))
    return found


def pack_wad(maps: dict[str, str]) -> bytes:
    """A PWAD file of UDMF maps by name (at most eight letters)."""
    body, directory = b"", b""
    for name, text in maps.items():
        for lump, data in ((name, b""), ("TEXTMAP", text.encode()), ("ENDMAP", b"")):
            directory += struct.pack("<ii8s", 12 + len(body), len(data), lump.encode())
            body += data
    return b"PWAD" + struct.pack("<ii", 3 * len(maps), 12 + len(body)) + body + directory


def _corner(room: int) -> tuple[int, int]:
    """The south-west corner."""
    return PITCH * (room % SIDE), PITCH * (room // SIDE)


def _room_at(x: float, y: float) -> int:
    return int(x // PITCH) + SIDE * int(y // PITCH)


def _passage(first: int, is_beside: bool, half: int) -> tuple[int, int, int, int]:
    """The passage to the east or north of a room, as wide as a panel."""
    x, y = _corner(first)
    if is_beside:
        return x + ROOM, y + PANEL * half, x + PITCH, y + PANEL * (half + 1)
    return x + PANEL * half, y + ROOM, x + PANEL * (half + 1), y + PITCH


def _panels(room: int, holes: set[tuple[int, str, int]]) -> list[tuple[int, int, int, int]]:
    """The panels of a room's walls, clockwise, without those where a passage is."""
    x, y = _corner(room)
    found = []
    for half in range(2):
        a, b = PANEL * half, PANEL * (half + 1)
        panels = {
            "west": (x, y + a, x, y + b),
            "north": (x + a, y + ROOM, x + b, y + ROOM),
            "east": (x + ROOM, y + b, x + ROOM, y + a),
            "south": (x + b, y, x + a, y),
        }
        found += [line for side, line in panels.items() if (room, side, half) not in holes]
    return found


def _frame(passage: tuple[int, int, int, int], is_beside: bool) -> list[tuple[int, int, int, int]]:
    """The two walls of a passage."""
    left, low, right, high = passage
    if is_beside:
        return [(left, high, right, high), (right, low, left, low)]
    return [(left, low, left, high), (right, high, right, low)]


def _textures(rng: np.random.Generator, count: int) -> np.ndarray:
    """Every texture about equally often in a map, so that few panels of a map look alike."""
    rounds = -(-count // len(WALLS))
    return np.concatenate([rng.permutation(len(WALLS)) for _ in range(rounds)])[:count]


def _sectors(plan: Rooms) -> list[int]:
    """The room or passage to the right of each wall."""
    found = []
    for x0, y0, x1, y1 in plan.walls:
        x, y = (x0 + x1) / 2 + np.sign(y1 - y0), (y0 + y1) / 2 - np.sign(x1 - x0)
        inside = (plan.passages[:, :2] < (x, y)).all(1) & ((x, y) < plan.passages[:, 2:]).all(1)
        found.append(SIDE * SIDE + int(inside.argmax()) if inside.any() else _room_at(x, y))
    return found
