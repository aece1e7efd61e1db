"""`g2vlm download`: a checkpoint from the hub to this machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from g2vlm.checkpoints.hub import DEFAULT_REPO
from g2vlm.checkpoints.hub import download as download_checkpoint
from g2vlm.cli.shared.terminal import format_bytes, reserved_stdout, say, write_json
from g2vlm.scene.writing import check_folder


@dataclass(frozen=True, kw_only=True)
class Options:
    """Fetch a checkpoint from the hub, or complete and check one fetched before.

    An interrupted download continues where it stopped. Every file is compared with the size and content hash
    that the hub announces. HF_ENDPOINT (a mirror), HF_TOKEN, HF_HOME and HF_HUB_CACHE are honoured.
    """

    repo: tyro.conf.Positional[str] = DEFAULT_REPO
    """Hub id, owner/name."""
    revision: str = "main"
    """Branch, tag or commit."""
    folder: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Where to put the files. Without it: the hub's cache, where  --ckpt owner/name  finds them."""
    json: bool = False
    """Print one JSON object to stdout and nothing else there."""


def run(options: Options) -> int:
    """Download, verify, say where it is."""
    with reserved_stdout() as out:
        say(f"{options.repo} at {options.revision}")
        if options.folder is not None:
            check_folder(options.folder)
        folder = download_checkpoint(options.repo, options.revision, options.folder)
        out.kept(folder)
        sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()}
        if options.json:
            write_json(out, {"folder": str(folder), "files": sizes})
        else:
            say(f"complete and verified: {len(sizes)} files, {format_bytes(sum(sizes.values()))}")
            out.write(f"{folder}\n")
    return 0
