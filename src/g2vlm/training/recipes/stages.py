"""Stages of training: which losses drive them, and which weights they may change."""

from enum import Enum

from torch import nn

from g2vlm.model.network import G2VLM


class Stage(Enum):
    """What a training run optimises."""

    GEOMETRY = "geometry"
    """Stage 1: points and cameras; teaches the geometric expert."""
    JOINT = "joint"
    """Stage 2: answers only, the geometric expert frozen: G2VLM."""
    SPATIAL_REASONING = "spatial_reasoning"
    """Stage 2: answers only, the geometric expert trained by them too: G2VLM-SR."""
    GEOMETRY_AND_LANGUAGE = "geometry_and_language"
    """Stage 2: answers and geometry together (VG+CE)."""

    @property
    def has_geometry(self) -> bool:
        """Whether the geometry loss is computed."""
        return self in (Stage.GEOMETRY, Stage.GEOMETRY_AND_LANGUAGE)

    @property
    def has_language(self) -> bool:
        """Whether the language loss is computed."""
        return self is not Stage.GEOMETRY


class Group(Enum):
    """Weights that are trained or frozen together."""

    GEOMETRIC_ENCODER = "geometric_encoder"
    GEOMETRIC_EXPERT = "geometric_expert"
    """The expert's layers and norm, and the bridge that feeds it."""
    GEOMETRY_HEADS = "geometry_heads"
    SEMANTIC_ENCODER = "semantic_encoder"
    SEMANTIC_EXPERT = "semantic_expert"
    """The expert's layers and norm, the token embedding and the language head."""


_TOPS = {
    "geometric_encoder": Group.GEOMETRIC_ENCODER,
    "bridge": Group.GEOMETRIC_EXPERT,
    "semantic_encoder": Group.SEMANTIC_ENCODER,
    "embedding": Group.SEMANTIC_EXPERT,
    "language_head": Group.SEMANTIC_EXPERT,
    "point_head": Group.GEOMETRY_HEADS,
    "camera_head": Group.GEOMETRY_HEADS,
    "global_point_head": Group.GEOMETRY_HEADS,
    "confidence_head": Group.GEOMETRY_HEADS,
}

NEVER_TRAINED = ("geometric_encoder.mask_token",)
"""Weights that no forward pass uses; an optimizer state for them would never be complete."""


def group_of(name: str) -> Group:
    """The group of the weight with our name `name`."""
    top = name.split(".", 1)[0]
    if top != "mixture":
        return _TOPS[top]
    is_geometric = ".geometric." in name or name.startswith("mixture.geometric_norm")
    return Group.GEOMETRIC_EXPERT if is_geometric else Group.SEMANTIC_EXPERT


def released_groups(stage: Stage) -> frozenset[Group]:
    """What each stage of the released training changes; both image encoders stay as pre-trained."""
    return {
        Stage.GEOMETRY: frozenset({Group.GEOMETRIC_EXPERT, Group.GEOMETRY_HEADS}),
        Stage.JOINT: frozenset({Group.SEMANTIC_EXPERT}),
        Stage.SPATIAL_REASONING: frozenset({Group.SEMANTIC_EXPERT, Group.GEOMETRIC_EXPERT}),
        Stage.GEOMETRY_AND_LANGUAGE: frozenset(
            {Group.SEMANTIC_EXPERT, Group.GEOMETRIC_EXPERT, Group.GEOMETRY_HEADS}
        ),
    }[stage]


def from_scratch_groups(stage: Stage) -> frozenset[Group]:
    """What each stage changes where nothing was pre-trained: its encoders as well."""
    encoders = {
        # Without a pre-trained semantic expert, the few prompt tokens in front of the photos learn too.
        Stage.GEOMETRY: {Group.GEOMETRIC_ENCODER, Group.SEMANTIC_EXPERT},
        Stage.JOINT: {Group.SEMANTIC_ENCODER},
        Stage.SPATIAL_REASONING: {Group.SEMANTIC_ENCODER, Group.GEOMETRIC_ENCODER},
        Stage.GEOMETRY_AND_LANGUAGE: {Group.SEMANTIC_ENCODER, Group.GEOMETRIC_ENCODER},
    }[stage]
    return released_groups(stage) | encoders


def freeze_(network: G2VLM, trained: frozenset[Group]) -> list[tuple[str, nn.Parameter]]:
    """Let gradients flow into some groups only, and return their weights with their names."""
    chosen = []
    for name, parameter in network.named_parameters():
        wanted = group_of(name) in trained and name not in NEVER_TRAINED
        parameter.requires_grad_(wanted)
        if wanted:
            chosen.append((name, parameter))
    return chosen
