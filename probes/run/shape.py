"""What decides the cost of a run: counts of the network, of the clip, and the settings.

    run = shape_of_run(model, settings, frames=12)          # or RunShape(layers=30, heads=12, ...)
    run.rows(conditions=30), run.cache_bytes(chunks=20)     # what experiments count with

Each experiment counts with it in its own file (`evaluations`, `kept_bytes`). A layer evaluation is one layer
over one chunk of one row of a batch. The counts are those of a model whose layers can be passed over.
"""

from dataclasses import dataclass
from math import ceil

from framelens.diffusion.contract import CausalDiffuser, module_of, traits
from framelens.models.cost.operations import VALUE_BYTES
from framelens.probes.chunk.chunk_probe import DRAWS, conditions_per_batch
from framelens.probes.chunk.layers import Layers
from framelens.probes.run import probed_clip
from framelens.probes.run.settings import NETWORKS, Settings
from framelens.probes.run.world_features import known_world

NETWORK_COUNT = len(NETWORKS)
WITHOUT_PAST_KEYS = ("channel_concat", "add", "residual")
"""Fusions of a separated model whose decoder attends to its own frame alone."""


@dataclass(frozen=True, kw_only=True)
class RunShape:
    """What decides how much a run evaluates and holds, of one clip."""

    layers: int
    """Layers that denoise."""
    encoding_layers: int
    """Layers that keep keys and values of finished frames."""
    heads: int
    d_model: int
    mlp_width: int
    parameters: int
    tokens: int
    """Tokens of a chunk."""
    chunk: int = 1
    """Frames that are made together."""
    chunks: int
    settings: Settings
    text_tokens: int = 0
    seen: int | None = None
    """Chunks that a bounded history holds, the current one included; None for all."""
    is_bidirectional: bool = False
    """Whether the network also makes a whole clip in one pass, which mask_drift is about."""
    knows_state: bool = False
    """Whether the clips come from a world whose state is known."""
    attends_to_past: bool = True
    """Whether a denoising pass attends to keys of earlier frames."""
    start_is_pass: bool = False
    """Whether an encoder runs before the first frame is known."""
    asks: bool = False
    """Whether an encoder runs once more to ask for the coming frame."""
    query_layer: int = 0
    """The layer at which it then begins."""
    decodes_features: bool = False
    """Whether the decoder reads the features of each finished frame once, as a prefix."""

    @property
    def value_bytes(self) -> int:
        """Bytes of a weight, a key, a feature."""
        return VALUE_BYTES[self.settings.dtype]

    @property
    def reached(self) -> list[int]:
        """The layers that interventions reach for."""
        return self.settings.chosen_layers(self.layers)

    @property
    def every(self) -> list[int]:
        """All layers between the first and the last of them."""
        return list(range(self.reached[0], self.reached[-1] + 1))

    @property
    def behind(self) -> int:
        """Layers after each of the reached ones, added up: what runs when all layers up to it are served."""
        return sum(self.layers - layer - 1 for layer in self.reached)

    @property
    def steps(self) -> int:
        """Steps of a chunk that is drawn under an intervention."""
        return self.settings.drawn_steps

    @property
    def levels(self) -> int:
        """Noise levels at which velocities are compared."""
        return probed_clip.LEVELS

    @property
    def batch(self) -> int:
        """Conditions per batch of interventions."""
        return conditions_per_batch(self.tokens)

    @property
    def probed(self) -> list[int]:
        """The first frames of the chunks at which features and attention are read."""
        return probed_clip.probed_frames(self.settings, self.chunks * self.chunk, self.chunk)

    @property
    def drawn(self) -> int:
        """Chunks after the context."""
        return self.chunks - self.settings.context // self.chunk

    @property
    def branches(self) -> int:
        """Passes that guidance makes of each step of a rollout."""
        return 1 if self.settings.guidance == 1 else 2

    def rows(self, conditions: int) -> int:
        """Rows of all batches that this number of conditions takes; the last batch is filled up."""
        return ceil(conditions / self.batch) * self.batch * DRAWS

    def past_frames(self, frame: int) -> int:
        """Earlier frames in view of the chunk that begins with this one."""
        return frame if self.seen is None else min(frame, (self.seen - 1) * self.chunk)

    def encoding(self, chunks: int, rows: int = 1) -> int:
        """Layer evaluations that take the first `chunks` chunks of a clip into memory, the start included."""
        prefix = self.layers if self.decodes_features else 0
        start = self.encoding_layers - self.query_layer + prefix if self.start_is_pass else 0
        each = self.encoding_layers + prefix + (self.encoding_layers - self.query_layer if self.asks else 0)
        return rows * (start + chunks * each)

    def cache_bytes(self, chunks: int, rows: int = 1) -> int:
        """Keys and values of `chunks` chunks in every layer that keeps them, as far as caches have grown, and
        of the prompt."""
        capacity = 1
        while capacity < chunks:
            capacity *= 2
        capacity = min(capacity, self.seen or capacity)
        width = self.d_model * self.value_bytes
        own = 2 * rows * self.encoding_layers * capacity * self.tokens * width
        return own + 2 * rows * self.layers * self.text_tokens * width

    def residual_bytes(self, rows: int = 1, value_bytes: int | None = None) -> int:
        """The residual stream of one chunk before the first layer and after each layer."""
        width = self.d_model * (value_bytes or self.value_bytes)
        return rows * (self.layers + 1) * self.tokens * width


def shape_of_run(model: CausalDiffuser, settings: Settings, frames: int) -> RunShape:
    """The shape of a run of that model, with settings that are meant for it, on clips of `frames` frames."""
    geometry, layers = model.geometry, len(Layers(model))
    own = traits(model)
    declared = {} if own.describe is None else own.describe()
    stack, chunk = own.denoising_stack, geometry.frames_per_chunk
    encoding = [point for point in model.attn_dict if not stack or not point.startswith(stack)]
    window = declared.get("window")
    return RunShape(
        layers=layers,
        encoding_layers=len(encoding) or layers,
        heads=geometry.heads,
        d_model=geometry.d_model,
        mlp_width=declared.get("mlp_width") or 4 * geometry.d_model,
        parameters=sum(weight.numel() for weight in module_of(model).parameters()),
        tokens=geometry.tokens_per_chunk,
        chunk=chunk,
        chunks=frames // chunk,
        settings=settings,
        text_tokens=declared.get("text_tokens") or 0,
        seen=None if window is None else -(-(window + (declared.get("sink") or 0)) // chunk) + 1,
        is_bidirectional=own.bidirectional is not None,
        knows_state=known_world(settings, model) is not None,
        attends_to_past=declared.get("fusion") not in WITHOUT_PAST_KEYS,
        start_is_pass=own.start_is_pass,
        asks=own.asks,
        query_layer=declared.get("query_layer", 0),
        decodes_features=own.disturbed_is_pass,
    )
