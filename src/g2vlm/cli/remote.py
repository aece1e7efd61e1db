"""`--server URL`: the work of recon and chat, done by a service."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from g2vlm.cli.shared.terminal import progress_bar, say
from g2vlm.errors import InputError

if TYPE_CHECKING:
    from g2vlm.cli.shared.scene_options import SceneOptions
    from g2vlm.client.service import Client
    from g2vlm.scene.scene import Scene

_STEPS = 1000
_OF_SERVICE = ("ckpt", "download", "device", "dtype", "view_attention", "quantization", "compiled", "tf32")
"""Options that are the service's own."""


@dataclass(frozen=True, kw_only=True)
class RemoteOptions:
    """Where the work is done."""

    server: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None
    """Have a service (g2vlm serve) do the work, with the key in G2VLM_API_KEY."""


def connect(options: "SceneOptions", url: str) -> "Client":
    """A client of the service that options name.

    Raises:
        InputError: options that a service decides, or frames chosen in a way that it does not know.
    """
    from g2vlm.cli.shared.scene_options import SceneOptions
    from g2vlm.client.service import Client

    own = SceneOptions()
    given = [name for name in _OF_SERVICE if getattr(options, name) != getattr(own, name)]
    if options.frames != own.frames:
        given.append("frames")
    if given:
        raise InputError(f"Expected no --{given[0]} beside --server: the service decides it.")
    return Client(url)


def looking(options: "SceneOptions") -> dict[str, Any]:
    """How photos become views, as a request says it."""
    wanted: dict[str, Any] = {"fit": options.fit.value, "frame_count": options.frame_count}
    if options.max_views is not None:
        wanted["max_views"] = options.max_views
    return wanted


def reconstruct(options: "SceneOptions", url: str) -> "Scene":
    """Send the photos, wait, and fetch the scene; the service keeps no copy."""
    with connect(options, url) as client:
        source = options.source()
        say(f"sending {source} to {url}")
        with progress_bar("reconstructing") as on_progress:

            def tell(share: float) -> None:
                if on_progress is not None:
                    on_progress(round(share * _STEPS), _STEPS)

            remote = client.reconstruct(source, questions=False, on_progress=tell, **looking(options))
        try:
            return remote.load()
        finally:
            remote.delete()
