"""`g2vlm serve`: the HTTP service."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from g2vlm.cli.shared.scene_options import Compiled, SceneOptions
from g2vlm.cli.shared.streams import ResultStream
from g2vlm.cli.shared.terminal import say, write_json
from g2vlm.errors import InputError, MissingExtraError
from g2vlm.model.config import ViewAttention
from g2vlm.model.quantization import Quantization
from g2vlm.server.guard.keys import check_listening, create_key, revoke_key
from g2vlm.server.guard.limits import Limits


@dataclass(frozen=True, kw_only=True)
class Options(Limits):
    """Serve a model over HTTP: chat completions as OpenAI's clients call them, scenes, depth.

    Listens to this machine alone, unless there are API keys. Ctrl+C or SIGTERM ends it in order.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "service": (
            "host",
            "port",
            "keys",
            "new_key",
            "revoke_key",
            "data",
            "open_to_all",
            "fetch_urls",
            "origins",
        ),
        "model": ("ckpt", "model_name", "download", "device", "dtype"),
        "limits": tuple(field.name for field in fields(Limits)),
        "expert": ("view_attention", "quantization", "compiled", "grace_s", "log_level", "json"),
    }
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "g2vlm serve",
        "g2vlm serve --keys keys.json --new_key anna",
        "g2vlm serve --host 0.0.0.0 --keys keys.json --data service",
    )

    host: str = "127.0.0.1"
    """Address to listen on; the default is reached from this machine only."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    keys: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File with digests of API keys, each of which belongs to a tenant. Without it no key is asked for."""
    new_key: Annotated[str | None, tyro.conf.arg(metavar="TENANT")] = None
    """Make a key for this tenant in --keys, print it, and end."""
    revoke_key: Annotated[str | None, tyro.conf.arg(metavar="ID")] = None
    """Make a key in --keys useless, also for services that run, and end; its eight letters after `g2vlm-`."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder in which uploads and scenes survive a restart. Without it they are gone at the end."""
    open_to_all: bool = False
    """Let other machines ask without keys."""
    fetch_urls: bool = False
    """Let requests name photos by https addresses, which this machine then fetches."""
    origins: Annotated[str, tyro.conf.arg(metavar="ADDRESSES")] = ""
    """Web pages whose scripts may call the service, with commas between: https://page.example."""
    ckpt: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Checkpoint: a folder, a hub id, or g2vlm-tiny. Without it: the released one if it is in the cache, or
    may be downloaded, else the bundled one."""
    model_name: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Under which clients ask for it. Without it: the checkpoint's name."""
    download: bool = False
    """Fetch a hub's checkpoint that is not in the cache (the released one has 18 GB)."""
    device: str = "auto"
    """auto (cuda if there is one, else cpu), cpu, cuda, cuda:1, mps."""
    dtype: str = "auto"
    """auto, bfloat16 or float32."""
    view_attention: Annotated[ViewAttention | None, tyro.conf.arg(metavar="{global,causal}")] = None
    """As of g2vlm recon."""
    quantization: Quantization = Quantization.NONE
    """packed, int8 or int4: store the language side in fewer bits; see g2vlm chat."""
    compiled: Compiled = Compiled.AUTO
    """Write answers by compiled passes; see g2vlm chat."""
    grace_s: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 30.0
    """How long work may take to finish once the service is told to end."""
    log_level: str = "info"
    """debug, info, warning or error."""
    json: bool = False
    """Print the address as JSON."""

    def limits(self) -> Limits:
        """Those of the service."""
        return Limits(**{field.name: getattr(self, field.name) for field in fields(Limits)})

    def model_options(self) -> SceneOptions:
        """How the model is loaded."""
        return SceneOptions(
            ckpt=self.ckpt,
            download=self.download,
            device=self.device,
            dtype=self.dtype,
            view_attention=self.view_attention,
            quantization=self.quantization,
            compiled=self.compiled,
        )


def run(options: Options) -> int:
    """Serve until told to end."""
    out = ResultStream()
    if options.new_key is not None or options.revoke_key is not None:
        out.write(_change_keys(options) + "\n")
        return 0
    _check(options)
    from g2vlm.checkpoints.hub import choose_checkpoint
    from g2vlm.server.guard.logging import set_up_logging
    from g2vlm.server.running import address_of, listen, make_service, serve
    from g2vlm.server.settings import Settings

    listening = listen(options.host, options.port)
    with listening:
        model = options.model_options().load_model()
        model.load_parts(model.config.parts)
        name = options.model_name or choose_checkpoint(options.ckpt).name
        settings = Settings(
            model_name=Path(name).name if Path(name).exists() else name,
            data=options.data,
            keys=options.keys,
            fetch_urls=options.fetch_urls,
            local_only=options.keys is None and not options.open_to_all,
            origins=tuple(origin.strip() for origin in options.origins.split(",") if origin.strip()),
            grace_s=options.grace_s,
            limits=options.limits(),
        )
        service = make_service(model, settings)
        address = address_of(listening)
        kept = f"kept in {options.data}" if options.data else "gone at the end (--data FOLDER keeps them)"
        say(f"model: {settings.model_name}; uploads and scenes: {kept}")
        say("Ctrl+C ends it.")

        def tell() -> None:
            if options.json:
                write_json(out, {"address": address, "model": settings.model_name})
            else:
                out.write(f"{address}\n")

        set_up_logging(options.log_level)
        serve(service, listening, tell)
    return 0


def _change_keys(options: Options) -> str:
    """Make or revoke a key; what to print."""
    if options.keys is None:
        raise InputError(
            "Expected the file of the keys beside --new_key or --revoke_key: name it with --keys FILE."
        )
    if options.new_key is not None and options.revoke_key is not None:
        raise InputError("Expected --new_key or --revoke_key, got both: give one after the other.")
    if options.revoke_key is not None:
        key = revoke_key(options.keys, options.revoke_key)
        return f"revoked {key.id} of {key.tenant}"
    assert options.new_key is not None
    return create_key(options.keys, options.new_key)


def _check(options: Options) -> None:
    """Find out before the model is loaded what would fail after it.

    Raises:
        InputError: options that contradict each other, or are out of range.
        MissingExtraError: the extra of the service is not installed.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("The HTTP service", "server") from error
    check_listening(options.host, has_keys=options.keys is not None, told=options.open_to_all)
    if not 0 <= options.port < 1 << 16:
        raise InputError(f"Expected --port from 0 to 65535, got {options.port}.")
    if options.log_level not in ("debug", "info", "warning", "error"):
        raise InputError(f"Expected --log_level debug, info, warning or error, got {options.log_level!r}.")
    if not options.grace_s >= 0:
        raise InputError(f"Expected --grace_s of 0 or more, got {options.grace_s}.")
    if options.keys is not None:
        from g2vlm.server.guard.keys import KeyRing

        KeyRing(options.keys)
