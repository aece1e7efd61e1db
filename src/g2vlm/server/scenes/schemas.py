"""Requests and answers about scenes."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, FiniteFloat

from g2vlm.server.chat.schemas import Text, Usage
from g2vlm.server.media.parts import FilePart, ImagePart, Looking, MediaPart, Strict

Coordinate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Pixel = Annotated[list[Coordinate], Field(min_length=2, max_length=2, description="[u, v]")]
ViewNumber = Annotated[int, Field(ge=0, le=100_000, description="Number of the view, from 0.")]
Space = Literal["original", "model"]


class SceneRequest(Looking):
    """Photos, or one video, that show one place."""

    inputs: list[MediaPart] = Field(
        min_length=1, max_length=1000, description="Photos in order, or one video."
    )
    questions: bool = Field(
        True,
        description="`true`: the scene comes from the pass that also prepares questions, as with "
        "`g2vlm chat`; `false`: from the pass of `g2vlm recon`.",
    )


class SceneView(BaseModel):
    """A photo or frame of a scene."""

    name: str
    original_size: list[int] = Field(description="Width and height in pixels.")
    time_s: float | None = Field(description="In the video.")
    K: list[list[float]] = Field(description="Intrinsics in pixels of the original, centres at integers.")
    T_world_camera: list[list[float]] = Field(description="Camera-to-world pose; x right, y down, z forward.")
    focal_measured: bool = Field(description="False where the focal length is a guess.")


class SceneFacts(BaseModel):
    """What a finished scene holds."""

    num_points: int
    scale: Literal["relative", "metric"]
    bounds: list[list[float]] | None = Field(description="Lowest and highest x, y, z.")
    views: list[SceneView]


class Scene(BaseModel):
    """A scene, finished or not."""

    id: str
    object: Literal["scene"] = "scene"
    status: Literal["queued", "running", "done", "failed"]
    progress: float = Field(description="Share that is done, 0 to 1.")
    created_at: float = Field(description="Seconds since 1970.")
    expires_at: float = Field(description="When it is removed unless it is used before; seconds since 1970.")
    bytes: int = Field(description="On the disk.")
    error: str | None = Field(description="Why it failed.")
    result: SceneFacts | None = Field(description="Once it is done.")


class SceneList(BaseModel):
    """Scenes, newest first."""

    object: Literal["list"] = "list"
    data: list[Scene]


class AskTurn(Strict):
    """A question that was asked before, and its answer."""

    question: Text
    answer: Text


class AskRequest(Strict):
    """A question about a scene."""

    question: Text = Field(min_length=1, pattern=r"\S")
    turns: list[AskTurn] = Field(default_factory=list, max_length=100, description="What was said before.")
    max_tokens: int | None = Field(None, ge=1, description="Most tokens of the answer; 99 by default.")
    temperature: float = Field(0.0, ge=0, le=2, description="0 takes the likeliest token each time.")
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, le=1_000_000)
    seed: int = Field(0, ge=-(2**63), le=2**63 - 1)


class SceneAnswer(BaseModel):
    """An answer about a scene."""

    answer: str
    finish_reason: Literal["stop", "length"]
    confidence: float | None = Field(
        description="Geometric mean of the probabilities of the tokens: how sure the model is of its words."
    )
    usage: Usage


class DepthQuery(Strict):
    """How far a pixel is, along the viewing direction."""

    kind: Literal["depth"]
    view: ViewNumber
    pixel: Pixel
    space: Space = "original"


class DistanceQuery(Strict):
    """How far two pixels are from each other in space."""

    kind: Literal["distance"]
    view_a: ViewNumber
    pixel_a: Pixel
    view_b: ViewNumber
    pixel_b: Pixel
    space: Space = "original"


class SizeQuery(Strict):
    """How large what a box of pixels shows is."""

    kind: Literal["size"]
    view: ViewNumber
    box: Annotated[
        list[Coordinate], Field(min_length=4, max_length=4, description="[left, top, right, bottom]")
    ]
    space: Space = "original"


MeasureRequest = Annotated[DepthQuery | DistanceQuery | SizeQuery, Field(discriminator="kind")]


class Measured(BaseModel):
    """A length, or three."""

    values: list[FiniteFloat] = Field(description="One length, or width, height and depth.")
    unit: str = Field(description="`units`: up to one unknown factor.")
    confidence: float = Field(description="0 to 1.")
    text: str = Field(description="For people.")


class DepthRequest(Strict):
    """One photo."""

    image: Annotated[ImagePart | FilePart, Field(discriminator="type")]
    format: Literal["png", "json"] = Field(
        "png",
        description="`png`: a 16-bit PNG, everything else in headers; `json`: all in one, the PNG in base64.",
    )


class DepthMap(BaseModel):
    """Depth of every pixel of a photo."""

    width: int
    height: int
    K: list[list[float]] = Field(description="Intrinsics in pixels, centres at integers.")
    unit: str
    unit_per_count: float = Field(description="Depth of a pixel is its count times this; count 0 is unknown.")
    focal_measured: bool
    png: str = Field(description="16-bit PNG in base64.")
