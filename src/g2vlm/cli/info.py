"""`g2vlm info`: what a checkpoint holds, from the header of its weights alone."""

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro

from g2vlm.checkpoints.files import own_config_text, read_config
from g2vlm.checkpoints.hub import choose_checkpoint
from g2vlm.checkpoints.loading import KeyReport, Weights, inspect_keys
from g2vlm.checkpoints.names import rows_of
from g2vlm.cli.shared.streams import ResultStream
from g2vlm.cli.shared.terminal import format_bytes, reserved_stdout, say, write_json
from g2vlm.model.config import G2VLMConfig, Part

if TYPE_CHECKING:
    from torch import Tensor

CONFIDENCE_PREFIX = "conf_head."
EXIT_INCOMPLETE = 1
_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class Options:
    """Say what a checkpoint holds: sizes of its parts, missing and extra keys, configuration.

    Reads only the headers of the weights. Exits with 1 if keys are missing, left over or misshapen.
    """

    ckpt: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="CKPT")] = None
    """A folder, a hub id in the cache, or g2vlm-tiny. Without it: the cached or the bundled one."""
    json: bool = False
    """Print one JSON object to stdout and nothing else there."""


@dataclass
class PartSize:
    """Tensors of one part of the network, as stored."""

    parameters: int = 0
    """Numbers in all tensors."""
    bytes: int = 0
    """Bytes on disk."""
    dtypes: Counter[str] = field(default_factory=Counter)
    """Parameters of each stored number format."""

    def add(self, tensor: "Tensor") -> None:
        """Count one tensor; its numbers are not read."""
        self.parameters += tensor.numel()
        self.bytes += tensor.nbytes
        self.dtypes[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()


def run(options: Options) -> int:
    """Read the header, compare it with the layout, report."""
    with reserved_stdout() as out:
        choice = choose_checkpoint(options.ckpt, may_download=False)
        say(f"checkpoint: {choice}")
        weights = Weights.open(choice.folder)
        has_confidence = any(key.startswith(CONFIDENCE_PREFIX) for key in weights.shapes)
        config = read_config(choice.folder, has_confidence=has_confidence)
        sizes = measure_parts(weights, config)
        report = inspect_keys(weights.shapes, config)
        if options.json:
            write_json(out, _as_json(str(choice.folder), sizes, report, config))
        else:
            _print_table(out, sizes)
            _print_keys(out, report)
            _print_config(out, config)
    return EXIT_INCOMPLETE if report else 0


def measure_parts(weights: Weights, config: G2VLMConfig) -> dict[str, PartSize]:
    """Sizes by part, in the order of the network; keys that belong to no part count as "unknown"."""
    part_of = {key: part.value for part in Part for row in rows_of(part, config) for key in row.released}
    sizes = {part.value: PartSize() for part in Part}
    for key in weights.shapes:
        sizes.setdefault(part_of.get(key, "unknown"), PartSize()).add(weights.tensor(key))
    return sizes


def _print_table(out: ResultStream, sizes: dict[str, PartSize]) -> None:
    total = PartSize()
    for size in sizes.values():
        total.parameters += size.parameters
        total.bytes += size.bytes
        total.dtypes += size.dtypes
    out.write(f"{'part':<20}{'parameters':>16}{'on disk':>12}  format\n")
    for name, size in {**sizes, "total": total}.items():
        formats = ", ".join(size.dtypes) or "absent"
        out.write(f"{name:<20}{size.parameters:>16,}{format_bytes(size.bytes):>12}  {formats}\n")


def _print_keys(out: ResultStream, report: KeyReport) -> None:
    if not report:
        out.write("keys: every expected key is there with its shape, and no other\n")
    for kind in ("missing", "unexpected", "misshapen"):
        keys: tuple[str, ...] = getattr(report, kind)
        if keys:
            rest = f" ... and {len(keys) - _LISTED} more (--json lists all)" if len(keys) > _LISTED else ""
            out.write(f"{len(keys)} {kind} keys: {', '.join(keys[:_LISTED])}{rest}\n")


def _print_config(out: ResultStream, config: G2VLMConfig) -> None:
    for name, value in json.loads(own_config_text(config)).items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {item}" for key, item in value.items())
        out.write(f"{name}: {value}\n")


def _as_json(
    folder: str, sizes: dict[str, PartSize], report: KeyReport, config: G2VLMConfig
) -> dict[str, object]:
    return {
        "folder": folder,
        "parts": {
            name: {"parameters": size.parameters, "bytes": size.bytes, "dtypes": dict(size.dtypes)}
            for name, size in sizes.items()
        },
        "complete": not report,
        "keys": dataclasses.asdict(report),
        "config": json.loads(own_config_text(config)),
    }
