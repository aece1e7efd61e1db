"""Where checkpoints lie: the bundled one, the hub's cache, and what makes a folder complete.

The hub's settings hold at the moment of the call: HF_HUB_OFFLINE, HF_HOME, HF_HUB_CACHE, HF_ENDPOINT (the hub
library itself reads them once, at import). Nothing here touches the network.
"""

import json
import os
from pathlib import Path

from g2vlm.checkpoints.files import OWN_CONFIG, WEIGHTS

DEFAULT_REPO = "InternRobotics/G2VLM-2B-MoT"
BUNDLED_NAME = "g2vlm-tiny"
BUNDLED_FOLDER = Path(__file__).parent / "bundled"
WEIGHTS_INDEX = f"{WEIGHTS}.index.json"
CONFIG_FILES = ("text_config.json", "vit_config.json", "dino_config.json")


def has_bundled() -> bool:
    """Whether this installation carries the small bundled checkpoint."""
    return not missing_parts(BUNDLED_FOLDER / BUNDLED_NAME)


def is_cached(repo_id: str, revision: str = "main") -> bool:
    """Whether every needed file of a hub checkpoint lies in the cache; never touches the network."""
    return cached_folder(repo_id, revision) is not None


def cached_folder(repo_id: str, revision: str = "main") -> Path | None:
    """Snapshot folder of a complete cached checkpoint, or None; never touches the network."""
    storage = storage_folder(repo_id)
    reference = storage / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    folder = storage / "snapshots" / commit
    return None if missing_parts(folder) else folder


def storage_folder(repo_id: str) -> Path:
    """Folder of a repository in the hub's cache, whether it exists or not."""
    return cache_folder() / f"models--{repo_id.replace('/', '--')}"


def missing_parts(folder: Path) -> tuple[str, ...]:
    """Needed files that a checkpoint folder lacks: weights (whole or in shards), configs, tokenizer."""
    configs = () if (folder / OWN_CONFIG).is_file() else CONFIG_FILES
    missing = [file for file in (*_weights_files(folder), *configs) if not (folder / file).is_file()]
    slow_tokenizer = (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    if not slow_tokenizer and not (folder / "tokenizer.json").is_file():
        missing.append("tokenizer.json (or vocab.json and merges.txt)")
    return tuple(missing)


def cache_folder() -> Path:
    """The hub's cache on this machine, by the environment as it is now."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{home}/huggingface"
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return Path(os.path.expandvars(cache)).expanduser()


def hub_endpoint() -> str:
    """Address of the hub or its mirror, by the environment as it is now."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def is_offline() -> bool:
    """Whether the environment forbids the network (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE)."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in ("1", "ON", "YES", "TRUE")


def _weights_files(folder: Path) -> list[str]:
    """The one file of weights, or the shards that an index names."""
    index = folder / WEIGHTS_INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return [WEIGHTS]
    return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
