"""The whole network: two encoders, the mixture, the language head and the geometry heads."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from g2vlm.geometry.poses import transform_points
from g2vlm.model.cache import LayerMemory, Memory
from g2vlm.model.config import EncoderWindows, G2VLMConfig, Part
from g2vlm.model.geometric_encoder import GeometricEncoder
from g2vlm.model.heads import CameraHead, Decoder, DensePrediction, points_from_prediction
from g2vlm.model.layers import Linear, chunk_factor
from g2vlm.model.layout import Layout, Streams
from g2vlm.model.mixture import Mixture
from g2vlm.model.pausing import pause
from g2vlm.model.rotary import Rotation
from g2vlm.model.semantic_encoder import SemanticEncoder

Allocate = Callable[[tuple[int, ...], torch.dtype], Tensor]
"""Makes an unfilled tensor of a shape and type, wherever it likes."""
HEAD_TOKENS_PER_CHUNK = 1024
"""Patch tokens that the geometry heads decode at a time where no gradient is needed (at least one view)."""
SEMANTIC_VIEWS_PER_CHUNK = 4
"""Views that the semantic encoder reads at a time where no gradient is needed."""


@dataclass(frozen=True)
class Photographs:
    """Geometric images of one size, and how they are laid out as patches."""

    images: Float[Tensor, "batch views 3 height width"]
    """RGB in [0, 1]."""
    windows: EncoderWindows | None = None
    """How the geometric encoder cuts these views into windows; None: as the configuration says."""


@dataclass(frozen=True)
class SemanticPatches:
    """Semantic images of one size as normalised, flattened patches in merge order."""

    patches: Float[Tensor, "batch views patches features"]
    rows: int
    """Patches from top to bottom, before merging."""
    columns: int
    """Patches from left to right, before merging."""


@dataclass(frozen=True)
class ModelInputs:
    """One pass: what is fed, and where it stands."""

    layout: Layout
    """Blocks and positions of this pass (not of what a cache already holds)."""
    token_ids: Int[Tensor, "batch text"]
    """Text tokens in order, without placeholders for images."""
    text_slots: Int[Tensor, " text"]
    """Where text tokens stand in the semantic stream; the other slots take semantic image tokens in order."""
    photographs: Photographs | None = None
    patches: SemanticPatches | None = None


@dataclass(frozen=True)
class Wants:
    """Which results a pass should compute."""

    geometry: bool = False
    """Points and cameras of the views of this pass."""
    global_points: bool = False
    """Also the direct prediction of points in the frame of view 0."""
    logit_slots: Int[Tensor, " slots"] | Int[Tensor, "batch slots"] | None = None
    """Slots of the semantic stream whose next-token logits are wanted, alike in all rows or each its own."""
    allocate: Allocate | None = None
    """Where geometry goes, some views at a time, without gradients. By default, it stays on the network's
    device."""
    descriptors: bool = False
    """Also what each view of this pass looks like."""


@dataclass(frozen=True)
class GeometryPrediction:
    """Points and cameras of every view, float32, in the network's own frame and scale."""

    points_camera: Float[Tensor, "batch views height width 3"]
    """Camera frame, OpenCV axes."""
    T_world_camera: Float[Tensor, "batch views 4 4"]
    """Camera-to-world poses."""
    points_global: Float[Tensor, "batch views height width 3"] | None = None
    """Points predicted directly in the frame of view 0."""
    confidence_logits: Float[Tensor, "batch views height width"] | None = None
    """Before the sigmoid; None where the checkpoint has no confidence head."""

    @property
    def points_world(self) -> Float[Tensor, "batch views height width 3"]:
        """Camera points moved into the world by the predicted poses."""
        return transform_points(self.T_world_camera, self.points_camera)


@dataclass(frozen=True)
class Outputs:
    """Results of one pass."""

    hidden: Streams
    """After each expert's final norm."""
    geometry: GeometryPrediction | None
    logits: Float[Tensor, "batch slots vocabulary"] | None
    descriptors: Float[Tensor, "batch views channels"] | None = None
    """Mean token of each view after the geometric encoder, float32: no position of a view has entered it."""


class NextTokens(NamedTuple):
    """What a pass over one token of each row finds."""

    logits: Float[Tensor, "rows vocabulary"]
    """Of the next token."""
    choices: Int[Tensor, " rows"]
    """The likeliest; the first of equally likely ones."""
    log_probabilities: Float[Tensor, " rows"]
    """Natural logarithm of the probability of each choice, float32."""

    @classmethod
    def of(cls, logits: Float[Tensor, "rows vocabulary"]) -> "NextTokens":
        """Choose from logits."""
        largest, choices = logits.max(dim=-1)
        return cls(logits, choices, largest.float() - logits.float().logsumexp(dim=-1))


class PointHead(nn.Module):
    """A decoder followed by a dense prediction."""

    def __init__(self, config: G2VLMConfig, channels: int, *, anchored: bool = False) -> None:
        super().__init__()
        heads = config.heads
        self.decoder = Decoder(config.mixture.width, heads.point_width, heads, anchored=anchored)
        self.prediction = DensePrediction(heads.point_width, channels, config.geometric_encoder.patch_size)

    def forward(
        self,
        hidden: Float[Tensor, "views patches channels"],
        rows: int,
        columns: int,
        anchor: Float[Tensor, "views patches channels"] | None = None,
    ) -> Float[Tensor, "views height width out"]:
        """Predict every pixel of every view."""
        return self.prediction(self.decoder(hidden, rows, columns, anchor), rows, columns)


class PoseHead(nn.Module):
    """A decoder followed by the pooled camera head."""

    def __init__(self, config: G2VLMConfig) -> None:
        super().__init__()
        heads = config.heads
        self.decoder = Decoder(config.mixture.width, heads.camera_width, heads)
        self.camera = CameraHead(heads.camera_width)

    def forward(
        self, hidden: Float[Tensor, "views patches channels"], rows: int, columns: int, scenes: int = 1
    ) -> Float[Tensor, "views 4 4"]:
        """Predict T_world_camera of every view; the views of `scenes` stand one after the other."""
        decoded = self.decoder(hidden, rows, columns)
        return torch.cat([self.camera(views) for views in decoded.chunk(scenes)])


class G2VLM(nn.Module):
    """The network, or those of its parts that a job needs."""

    def __init__(self, config: G2VLMConfig, parts: frozenset[Part] | None = None) -> None:
        super().__init__()
        self.config = config
        self.parts = config.parts if parts is None else parts & config.parts
        width = config.mixture.width

        def build(part: Part, make: type[nn.Module], *args: object, **options: object) -> nn.Module | None:
            return make(*args, **options) if part in self.parts else None

        self.geometric_encoder = build(Part.GEOMETRIC_ENCODER, GeometricEncoder, config.geometric_encoder)
        self.bridge = build(Part.GEOMETRIC_ENCODER, nn.Linear, config.geometric_encoder.width, width)
        self.semantic_encoder = build(Part.SEMANTIC_ENCODER, SemanticEncoder, config.semantic_encoder, width)
        self.embedding = build(Part.MIXTURE, nn.Embedding, config.mixture.vocab_size, width)
        self.mixture = build(Part.MIXTURE, Mixture, config.mixture)
        self.language_head = build(Part.LANGUAGE_HEAD, Linear, width, config.mixture.vocab_size, bias=False)
        self.point_head = build(Part.POINT_HEAD, PointHead, config, 3)
        self.camera_head = build(Part.CAMERA_HEAD, PoseHead, config)
        self.global_point_head = build(Part.GLOBAL_POINT_HEAD, PointHead, config, 3, anchored=True)
        self.confidence_head = build(Part.CONFIDENCE_HEAD, PointHead, config, 1)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def _need(self, part: Part) -> nn.Module:
        module = getattr(self, part.value)
        if module is None:
            raise RuntimeError(f"This network was built without its {part.value}.")
        assert isinstance(module, nn.Module)
        return module

    def forward(self, inputs: ModelInputs, wants: Wants, cache: Memory | None = None) -> Outputs:
        """Encode, run the mixture, and decode what is wanted.

        Args:
            inputs: tokens and images of this pass.
            wants: which results to compute.
            cache: what was read before; this pass sees it and is appended to it.
        """
        views, descriptors = self._geometric_stream(inputs, wants)
        streams = Streams(self._semantic_stream(inputs), views)
        hidden = self._need(Part.MIXTURE)(streams, inputs.layout, cache)
        geometry = logits = None
        if wants.geometry:
            assert inputs.photographs is not None
            geometry = self.decode_geometry(hidden.geometric, inputs.photographs, wants)
        if wants.logit_slots is not None:
            logits = self._need(Part.LANGUAGE_HEAD)(_picked(hidden.semantic, wants.logit_slots))
        return Outputs(hidden, geometry, logits, descriptors)

    def embed_text(self, token_ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch channels"]:
        """Embedded text tokens."""
        assert self.embedding is not None
        embedded: Tensor = self.embedding(token_ids)
        return embedded

    def text_rotation(self, positions: Int[Tensor, " batch"]) -> Rotation:
        """Rotary angles of one text token of each row."""
        # Text has the same position along all three axes.
        rotation: Rotation = self._need(Part.MIXTURE).rotation_of(positions[:, None, None].expand(-1, 3, 1))  # type: ignore[operator]
        return rotation

    def decode(
        self, token_ids: Int[Tensor, " batch"], rotation: Rotation, memory: LayerMemory
    ) -> Float[Tensor, "batch vocabulary"]:
        """Read one more text token of each row: the logits of the next, as `forward` gives them.

        Args:
            token_ids: one of each row.
            rotation: `text_rotation` of their positions.
            memory: what was read before, with room for one more; see `Mixture.decode`.
        """
        hidden = self._need(Part.MIXTURE).decode(self.embed_text(token_ids)[:, None], rotation, memory)  # type: ignore[operator]
        logits: Tensor = self._need(Part.LANGUAGE_HEAD)(hidden[:, 0])
        return logits

    def encode_semantic(self, images: SemanticPatches) -> Float[Tensor, "batch tokens channels"]:
        """Semantic tokens of all views, one view after the other."""
        encoder = self._need(Part.SEMANTIC_ENCODER)
        flat = images.patches.flatten(0, 1)
        few = SEMANTIC_VIEWS_PER_CHUNK * chunk_factor(flat.device)
        step = flat.shape[0] if torch.is_grad_enabled() else few
        tokens = [encoder(part, images.rows, images.columns) for part in flat.split(max(step, 1))]
        return torch.cat(tokens).unflatten(0, images.patches.shape[:2]).flatten(1, 2)

    def _geometric_stream(self, inputs: ModelInputs, wants: Wants) -> tuple[Tensor, Tensor | None]:
        """Bridged tokens of all views, one view after the other, and the descriptors if they are wanted."""
        if inputs.photographs is None:
            ids = inputs.token_ids
            return torch.empty(ids.shape[0], 0, self.config.mixture.width, device=ids.device), None
        bridge, photographs = self.bridge, inputs.photographs
        assert bridge is not None
        patches = self._need(Part.GEOMETRIC_ENCODER)(photographs.images, photographs.windows)
        descriptors = patches.float().mean(dim=2) if wants.descriptors else None
        tokens: Tensor = bridge(patches)
        return tokens.flatten(1, 2), descriptors

    def _semantic_stream(self, inputs: ModelInputs) -> Float[Tensor, "batch tokens channels"]:
        text = self.embed_text(inputs.token_ids)
        if inputs.patches is None:
            return text
        images = self.encode_semantic(inputs.patches).to(text.dtype)
        num_tokens = inputs.layout.semantic_positions.shape[-1]
        is_text = torch.zeros(num_tokens, dtype=torch.bool, device=text.device)
        is_text[inputs.text_slots] = True
        # A stable sort by kind gives, for each slot, its place in [images, text].
        order = torch.argsort(is_text.int(), stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(num_tokens, device=order.device)
        return torch.cat([images, text], dim=1)[:, place]

    def decode_geometry(
        self,
        hidden: Float[Tensor, "batch tokens channels"],
        photographs: Photographs,
        wants: Wants,
    ) -> GeometryPrediction:
        """Run the geometry heads in float32, a few views at a time where no gradient is needed."""
        batch, views, _, height, width = photographs.images.shape
        patch = self.config.geometric_encoder.patch_size
        rows, columns = height // patch, width // patch
        per_view = hidden.unflatten(1, (views, rows * columns))
        chunks = list(_head_chunks(batch, views, rows * columns, hidden.device))
        gathered: dict[str, Tensor] = {}
        with torch.autocast("cpu" if hidden.is_meta else hidden.device.type, enabled=False):
            for chunk in chunks:
                pause()
                anchor = per_view[:, :1].float()
                part = self._decode_views(per_view[:, chunk].float(), anchor, (rows, columns), wants)
                if len(chunks) == 1 and wants.allocate is None:
                    return part
                _gather(part, chunk, views, gathered, wants.allocate)
        return GeometryPrediction(**gathered)

    def _decode_views(
        self,
        hidden: Float[Tensor, "batch views patches channels"],
        anchor: Float[Tensor, "batch 1 patches channels"],
        grid: tuple[int, int],
        wants: Wants,
    ) -> GeometryPrediction:
        shape, flat = hidden.shape[:2], hidden.flatten(0, 1)
        raw = self._need(Part.POINT_HEAD)(flat, *grid).unflatten(0, shape)
        # The few rows of pooled views are multiplied otherwise when there are more of them. A scene's cameras
        # should not depend on what else is in the batch, so each scene has them computed by itself; training,
        # where that is no matter, saves the time.
        scenes = 1 if torch.is_grad_enabled() else shape[0]
        poses = self._need(Part.CAMERA_HEAD)(flat, *grid, scenes).unflatten(0, shape)
        points_global = confidence = None
        if wants.global_points:
            first = anchor.expand(-1, shape[1], -1, -1).flatten(0, 1)
            points_global = self._need(Part.GLOBAL_POINT_HEAD)(flat, *grid, first).unflatten(0, shape)
        if self.confidence_head is not None:
            confidence = self.confidence_head(flat, *grid).unflatten(0, shape)[..., 0]
        return GeometryPrediction(points_from_prediction(raw), poses, points_global, confidence)


def _head_chunks(batch: int, views: int, patches: int, device: torch.device) -> Iterator[slice]:
    most = HEAD_TOKENS_PER_CHUNK * chunk_factor(device) // (batch * patches)
    step = views if torch.is_grad_enabled() else max(1, most)
    for start in range(0, views, step):
        yield slice(start, start + step)


def _picked(
    hidden: Float[Tensor, "batch tokens channels"], slots: Tensor
) -> Float[Tensor, "batch slots channels"]:
    """Tokens at some slots, the same in each row or each its own."""
    if slots.ndim == 1:
        return hidden[:, slots]
    return hidden.take_along_dim(slots[..., None], dim=1)


def _gather(
    part: GeometryPrediction,
    views: slice,
    num_views: int,
    gathered: dict[str, Tensor],
    allocate: Allocate | None,
) -> None:
    """Put some views decoded apart to their place among all."""
    for name, tensor in vars(part).items():
        if tensor is None:
            continue
        if name not in gathered:
            shape = (tensor.shape[0], num_views, *tensor.shape[2:])
            gathered[name] = allocate(shape, tensor.dtype) if allocate else tensor.new_empty(shape)
        gathered[name][:, views] = tensor
