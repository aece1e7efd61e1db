"""What an operator decides about a service."""

from dataclasses import dataclass, field
from pathlib import Path

from g2vlm.server.guard.limits import Limits

DEFAULT_PORT = 8000


@dataclass(frozen=True)
class Settings:
    """What an operator decides about a service."""

    model_name: str
    """Under which clients ask for the model."""
    data: Path | None = None
    """Folder in which uploads and scenes survive a restart; none keeps them until the end."""
    keys: Path | None = None
    """File with the digests of API keys; none asks for none."""
    fetch_urls: bool = False
    """Whether photos may be named by https addresses."""
    local_only: bool = False
    """Whether the service is for this machine alone, and must be asked for by such a name."""
    origins: tuple[str, ...] = ()
    """Web pages of which addresses may call the service from a browser."""
    grace_s: int | float = 30.0
    """How long work may take to finish once the service is told to stop."""
    limits: Limits = field(default_factory=Limits)
