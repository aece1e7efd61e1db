"""How requests name photos and videos, in the words of OpenAI's API."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

UPLOAD_ID = r"^upload_[0-9a-f]{32}$"
SCENE_ID = r"^scene_[0-9a-f]{32}$"
_URL = r"^(data:|https:)"
TINY_PHOTO = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAAAAAA6mKC9AAAAS0lEQVR42l3IyQHAIAgE"
    "wAXJBWj67zaPeIDzHGBDoExAnAiISyQgLhKBuMix9DinEdcw4+5WPL8QqqqqMczMLIW7e45a6xat8RbvB/FgBRAoHi"
    "wuAAAAAElFTkSuQmCC"
)
"""A data URL of 16 x 16 pixels, as an example."""


class Strict(BaseModel):
    """A part of a request: no other fields, no guessing of types."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Address(Strict):
    """Where a photo is."""

    url: str = Field(
        pattern=_URL,
        description="`data:image/jpeg;base64,...`, or, where the service allows it, `https://...`.",
        examples=[TINY_PHOTO],
    )
    detail: Literal["auto", "low", "high"] | None = Field(
        None, description="Taken for compatibility; the model has one size."
    )


class VideoAddress(Strict):
    """Where a video is."""

    url: str = Field(
        pattern=_URL,
        description="`data:video/mp4;base64,...`, or, where the service allows it, `https://...`.",
    )


class FileReference(Strict):
    """A photo or video that was uploaded before, or comes with the request."""

    file_id: str | None = Field(None, pattern=UPLOAD_ID, description="As `POST /v1/uploads` gave it.")
    file_data: str | None = Field(None, pattern=r"^data:", description="A data URL, instead of `file_id`.")
    filename: str | None = Field(None, max_length=255, description="Taken for compatibility.")


class ImagePart(Strict):
    """A photo."""

    type: Literal["image_url"]
    image_url: Address


class VideoPart(Strict):
    """A video, of which some frames become views."""

    type: Literal["video_url"]
    video_url: VideoAddress


class FilePart(Strict):
    """A photo or video by its upload."""

    type: Literal["file"]
    file: FileReference


class TextPart(Strict):
    """Words."""

    type: Literal["text"]
    text: str = Field(max_length=1_000_000)


MediaPart = Annotated[ImagePart | VideoPart | FilePart, Field(discriminator="type")]
"""A photo or a video."""


class Looking(Strict):
    """How photos and videos become views."""

    max_views: int | None = Field(
        None, ge=1, le=1000, description="At most so many views, spread evenly; the first and last stay."
    )
    fit: Literal["stretch", "pad"] = Field(
        "stretch",
        description="`stretch`: bring every view to the shape of the first; `pad`: keep the shape of each.",
    )
    frame_count: int = Field(8, ge=1, le=1000, description="How many frames of a video become views.")
