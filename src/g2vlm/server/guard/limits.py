"""Every limit of the service in one place, each with a default and a setting."""

from dataclasses import dataclass, fields

from g2vlm.errors import InputError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

_MAY_BE_ZERO = frozenset({"url_redirects", "cache_bytes", "queue_length"})


@dataclass(frozen=True)
class Limits:
    """What one request, one tenant and the whole service may use.

    Raises:
        InputError: on construction, a limit that is not positive, or two that contradict each other.
    """

    request_bytes: int = 64 * MIB
    """Largest body of a request other than an upload, in bytes; photos in data URLs count by a third more."""

    header_bytes: int = 32 * KIB
    """Largest header of a request, in bytes."""

    json_depth: int = 32
    """Deepest nesting of lists and objects in a JSON body."""

    image_bytes: int = 20 * MIB
    """Largest encoded photo, in bytes."""

    image_pixels: int = 50_000_000
    """Largest photo, in pixels; refused before its pixels are decoded."""

    images_per_request: int = 64
    """Most photos in one request."""

    video_bytes: int = 512 * MIB
    """Largest video, in bytes."""

    video_seconds: float = 1800.0
    """Longest video, in seconds of play."""

    video_frames: int = 128
    """Most frames of a video that become views."""

    prompt_tokens: int = 16_384
    """Most tokens of a whole conversation, photos included."""

    answer_tokens: int = 2048
    """Most tokens of an answer; a request may ask for fewer."""

    answers_per_request: int = 8
    """Most answers to one question (`n`)."""

    scenes_per_tenant: int = 1000
    """Most scenes that a tenant keeps; the least recently used finished one makes room."""

    jobs_per_tenant: int = 16
    """Most scenes of a tenant that are waiting or being computed."""

    uploads_per_tenant: int = 1000
    """Most uploads that a tenant keeps."""

    concurrent_requests: int = 128
    """Most requests in work at a time; more are answered with 429."""

    concurrent_per_tenant: int = 64
    """Most requests of one tenant in work at a time; more are answered with 429."""

    queue_length: int = 256
    """Most questions that wait for their turn; more are answered with 429."""

    request_seconds: float = 120.0
    """Longest time for an answer, in seconds, waiting included."""

    scene_seconds: float = 3600.0
    """Longest time for the computation of a scene, in seconds."""

    scene_attempts: int = 3
    """How often a scene is begun that the end of the service interrupted, before it counts as failed."""

    body_seconds: float = 60.0
    """Longest time for a request to arrive, in seconds; an upload may take ten times as long."""

    cache_bytes: int = 2 * GIB
    """Memory for photos that were perceived before, in bytes; 0 keeps none."""

    disk_bytes: int = 20 * GIB
    """Disk for uploads and scenes of all tenants, in bytes."""

    tenant_disk_bytes: int = 10 * GIB
    """Disk for uploads and scenes of one tenant, in bytes."""

    keep_scene_seconds: float = 7 * 86_400.0
    """How long a scene is kept after its last use, in seconds."""

    keep_upload_seconds: float = 86_400.0
    """How long an upload is kept after its last use, in seconds."""

    decoding_workers: int = 2
    """Processes that decode photos and videos."""

    decoding_seconds: float = 60.0
    """Longest time for the photos or the video of one request to be decoded, in seconds."""

    decoding_bytes: int = 3 * GIB
    """Address space of a process that decodes, in bytes."""

    url_bytes: int = 20 * MIB
    """Largest photo fetched from a URL, in bytes."""

    url_seconds: float = 10.0
    """Longest time for a URL to be fetched, in seconds, redirects included."""

    url_redirects: int = 3
    """Most redirects followed for a URL."""

    def __post_init__(self) -> None:
        for field in fields(Limits):
            value = getattr(self, field.name)
            least = 0 if field.name in _MAY_BE_ZERO else "more than 0"
            if not (value > 0 or (value == 0 and field.name in _MAY_BE_ZERO)):
                raise InputError(f"Expected {least} or above for {field.name}, got {value}.")
        if self.tenant_disk_bytes > self.disk_bytes:
            raise InputError(
                f"Expected tenant_disk_bytes of at most disk_bytes ({self.disk_bytes}), got "
                f"{self.tenant_disk_bytes}: lower it, or raise disk_bytes."
            )
        if self.image_bytes > self.request_bytes:
            raise InputError(
                f"Expected image_bytes of at most request_bytes ({self.request_bytes}), got "
                f"{self.image_bytes}: lower it, or raise request_bytes."
            )
