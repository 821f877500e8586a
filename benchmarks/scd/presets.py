"""Presets of `scd_bench`: a dense model, its separated twin, how they sample, and the sweeps."""

from dataclasses import dataclass, fields, replace
from typing import Any

from framelens import models
from framelens.diffusion.contract import traits
from framelens.models import dense, scd
from framelens.models.cost.operations import Shape, shape_of
from framelens.models.dense import Config as DenseConfig
from framelens.models.parts.config import StackConfig
from framelens.models.parts.scd_config import ASKING
from framelens.models.scd import Config as SCDConfig

DENSE, FETCH_ONCE, ASKS = "dense", "fetch_once", "asking"
"""Arms beside the fusions: dense, with the past fetched once, and prefix with an encoder that asks."""


@dataclass(frozen=True)
class Preset:
    """Two networks at one geometry, how they sample, and the values of each sweep."""

    name: str
    what: str
    dense: DenseConfig
    scd: SCDConfig
    frames: int
    """Frames of the longest video; its last frame has one frame less as history."""
    steps: int
    guidance: float
    history: int
    """Frames before the generated one, unless history is varied."""
    histories: tuple[int, ...]
    all_steps: tuple[int, ...]
    decoder_layers: tuple[int, ...]
    """Decoder depths of the sweep; encoder and decoder together keep their number of layers."""
    batches: tuple[int, ...]
    batch: int = 1
    threads: int | None = None
    """Threads of a CPU; None for one per core."""
    past_layers: int | None = None
    """First layers that see the past where it is fetched once; None for all."""

    @property
    def layers(self) -> str:
        """The number of layers of both networks, as text."""
        return (
            f"dense {self.dense.layers} layers against {self.scd.encoder_layers} + {self.scd.decoder_layers}"
        )

    @property
    def branches(self) -> int:
        """Passes per step: 2 with guidance, else 1."""
        return 1 if self.guidance == 1 else 2

    def shape(self, arm: str, decoder_layers: int | None = None, **changes) -> Shape:
        """The shape of an arm: DENSE, FETCH_ONCE, ASKS, or the separated network with that fusion."""
        use = {"batch": self.batch, "branches": self.branches}
        if arm == FETCH_ONCE:
            use["past_layers"] = self.dense.layers if self.past_layers is None else self.past_layers
        is_dense = arm in (DENSE, FETCH_ONCE)
        config = self.dense if is_dense else self.separated_config(arm, decoder_layers)
        return shape_of(config, **use | changes)

    def separated_config(self, fusion: str, decoder_layers: int | None = None) -> SCDConfig:
        """The separated network of that arm; `decoder_layers` moves layers from the encoder to it."""
        decoder = decoder_layers or self.scd.decoder_layers
        both = self.scd.encoder_layers + self.scd.decoder_layers
        layers = {"encoder_layers": both - decoder, "decoder_layers": decoder}
        query = ASKING if fusion == ASKS and not self.scd.asks else {}
        fusion = "prefix" if fusion == ASKS else fusion
        if fusion == "residual":
            query = ASKING
        elif self.scd.fusion == "residual" and not query:  # only residual is recomposed from dense layers
            query = {"query": "past", "start_token": True}
        return replace(self.scd, fusion=fusion, head=0, **layers, **query)

    def __post_init__(self):
        both = self.scd.encoder_layers + self.scd.decoder_layers
        for name, values in self.varied.items():
            if min(values, default=1) < 1:
                raise ValueError(f"{name} must be at least 1, got {', '.join(map(str, values))}")
        if self.longest >= self.frames:
            raise ValueError(
                f"a history of {self.longest} frames does not fit: a video of {self.name} has {self.frames} "
                f"frames, so at most {self.frames - 1} before the last"
            )
        if max(self.decoder_layers, default=1) >= both:
            raise ValueError(
                f"a decoder of {max(self.decoder_layers)} layers does not fit: {self.name} has {both} layers "
                f"for encoder and decoder, so at most {both - 1}"
            )

    @property
    def longest(self) -> int:
        """The longest history that is timed."""
        return max(*self.histories, self.history, 1)

    @property
    def largest(self) -> int:
        """The largest batch that is timed."""
        return max(*self.batches, self.batch, 1)

    @property
    def varied(self) -> dict[str, tuple[int, ...]]:
        """The values of each sweep; () for no sweep."""
        return {
            "history": self.histories,
            "steps": self.all_steps,
            "decoder_layers": self.decoder_layers,
            "batch": self.batches,
        }


TINY = Preset(
    name="tiny",
    what="networks of the tile world: 25 tokens a frame, width 128",
    dense=dense.config("tiny", conditions=5),
    scd=scd.config("tiny", conditions=5),
    frames=64,
    steps=10,
    guidance=1.0,
    history=32,
    histories=(1, 16, 32, 63),
    all_steps=(1, 4, 10, 25),
    decoder_layers=(1, 2, 4, 8),
    batches=(1, 4),
    threads=1,  # the work is smaller than the cost of sharing it
)
SMALL_SIZES: dict[str, Any] = {
    "channels": 32,
    "height": 8,
    "width": 8,
    "patch": 1,
    "heads": 8,
    "d_model": 512,
}
SMALL = Preset(
    name="small",
    what="networks between tiny and the paper's: 64 tokens a frame, width 512",
    dense=dense.Config(layers=12, **SMALL_SIZES),
    scd=scd.Config(encoder_layers=8, decoder_layers=4, **SMALL_SIZES),
    frames=65, steps=20, guidance=1.0, history=64,
    histories=(), all_steps=(), decoder_layers=(), batches=(),
    threads=1,  # so that a busy neighbour disturbs all arms alike
)  # fmt: skip
SMALL_WIDTH = 256
"""Largest width with which a network of a model's shapes uses one thread of a CPU."""
MINECRAFT = Preset(
    name="minecraft",
    what="TECO-Minecraft latents: 64 tokens a frame, width 1024",
    dense=dense.config("far-m", conditions=4),
    scd=scd.config("scd-m", conditions=4),
    frames=300,
    steps=50,
    guidance=1.5,
    history=222,
    histories=(16, 72, 144, 222, 299),
    all_steps=(1, 4, 10, 25, 50),
    decoder_layers=(2, 4, 8),
    batches=(1, 2, 4),
)
WAN = Preset(
    name="wan-1.3b",
    what="Wan2.1-1.3B latents of 832 x 480: 1560 tokens a frame, width 1536",
    dense=dense.config("wan-1.3b"),
    scd=scd.config("wan-1.3b"),
    frames=21,
    steps=4,
    guidance=1.0,
    history=10,
    histories=(1, 5, 10, 15, 20),
    all_steps=(1, 2, 4, 8, 50),
    decoder_layers=(5, 10, 20),
    batches=(1, 2),
)
PRESETS = {preset.name: preset for preset in (TINY, SMALL, MINECRAFT, WAN)}

QUARTER = {"heads": 3, "d_model": 384, "mlp_width": 2240, "height": 30, "width": 52}
SLICES = {
    "minecraft": replace(
        MINECRAFT,
        what="a slice of minecraft: its 64 tokens a frame and width 1024, but a third of the depth, "
        "a short history, few steps",
        dense=replace(MINECRAFT.dense, layers=4),
        scd=replace(MINECRAFT.scd, encoder_layers=2, decoder_layers=2),
        frames=17, steps=4, history=8,
        histories=(1, 8, 16), all_steps=(1, 4), decoder_layers=(1, 2), batches=(1, 2),
    ),
    "wan-1.3b": replace(
        WAN,
        what="a slice of wan-1.3b: a quarter of the tokens (390), of the width (384) and a fifth of the "
        "depth, a short history",
        dense=replace(WAN.dense, **QUARTER, layers=6),
        scd=replace(WAN.scd, **QUARTER, encoder_layers=5, decoder_layers=2),
        frames=6, history=2,
        histories=(1, 2, 5), all_steps=(1, 4), decoder_layers=(1, 2), batches=(1, 2),
    ),
}  # fmt: skip
"""Smaller presets that a CPU times instead of the big ones."""


def choose_preset(name: str, on_gpu: bool, split: tuple[int, int] | None = None) -> tuple[Preset, Preset]:
    """The preset or model of that name, and the timed preset: a slice of a big one on a CPU.

    `split` overrides the layers of encoder and decoder; ValueError for a slice, which has too few layers.
    """
    full = PRESETS[name] if name in PRESETS else of_model(name)
    timed = full if on_gpu else SLICES.get(name, full)
    if split is None:
        return full, timed
    if timed is not full:
        raise ValueError(
            f"a CPU times only a slice of {name}, which has no {split[0]} + {split[1]} layers: "
            "use --device cuda, or --preset tiny"
        )
    layers = {"encoder_layers": split[0], "decoder_layers": split[1]}
    split_up = replace(full, scd=replace(full.scd, **layers), decoder_layers=(split[1],))
    return split_up, split_up


def of_model(name: str) -> Preset:
    """A preset with the shapes of a framelens model (shipped or a checkpoint), sampled like `tiny`."""
    if name not in models.names() and "/" not in name and "." not in name:
        raise ValueError(
            f"no preset is called {name!r}; there are {', '.join(PRESETS)}, the models "
            f"{', '.join(models.names())}, and paths of checkpoints (--preset PATH)"
        )
    config = traits(models.load(name)).config
    if not isinstance(config, DenseConfig | SCDConfig):
        raise ValueError(f"{name} is not a framelens dense or separated network, so it has no twin")
    shapes = {field.name: getattr(config, field.name) for field in fields(StackConfig)}
    if isinstance(config, SCDConfig):
        separated = config
    else:
        decoder = max(1, config.layers // 3)
        separated = SCDConfig(
            **shapes, encoder_layers=max(1, config.layers - decoder), decoder_layers=decoder
        )
    layers = getattr(config, "layers", separated.encoder_layers + separated.decoder_layers)
    tokens = config.geometry(layers).tokens_per_frame
    return replace(
        TINY,
        name=models.label(name),
        what=f"networks shaped as {models.label(name)}: {tokens} tokens a frame, width {config.d_model}",
        dense=DenseConfig(**shapes, layers=layers),
        scd=separated,
        threads=TINY.threads if config.d_model <= SMALL_WIDTH else None,
        decoder_layers=(separated.decoder_layers,),
    )
