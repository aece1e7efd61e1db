"""Where a measurement was made: machine, versions, commit."""

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

from g2vlm.errors import MissingExtraError

PACKAGES = ("g2vlm", "torch", "transformers", "numpy")
BUSY = 0.3
"""Load for each core, before anything is measured, from which figures are called disturbed."""


@dataclass(frozen=True)
class Machine:
    """What decides about speed, and how busy it was."""

    processor: str
    cores: int
    threads: int
    """Threads that torch uses."""
    memory_bytes: int
    device: str
    """Name of the GPU, or `cpu`."""
    system: str
    load_per_core: float
    """Processes that were running for each core in the minute before; above `BUSY` figures are disturbed."""

    @property
    def key(self) -> str:
        """What makes two measurements comparable: processor, cores, threads and device."""
        return f"{self.processor} | {self.cores} cores | {self.threads} threads | {self.device}"

    @property
    def disturbed(self) -> bool:
        """Whether others were using the machine when the measurement began."""
        return self.load_per_core > BUSY


def describe_machine(device: torch.device) -> Machine:
    """Look at this machine.

    Raises:
        MissingExtraError: psutil is not installed.
    """
    try:
        import psutil  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError("Measuring speed and memory", "bench") from error
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    cores = os.cpu_count() or 1
    return Machine(
        processor=processor_name(),
        cores=cores,
        threads=torch.get_num_threads(),
        memory_bytes=psutil.virtual_memory().total,
        device=gpu,
        system=f"{platform.system()} {platform.machine()}",
        load_per_core=round(psutil.getloadavg()[0] / cores, 2),
    )


def processor_name() -> str:
    """The model name that Linux knows, else what Python knows; with the fast number formats it has."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if not information.is_file():
        return name
    fields = dict(_pairs(information.read_text(errors="replace")))
    formats = [
        word
        for word in ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
        if word in fields.get("flags", "").split()
    ]
    return " ".join([fields.get("model name", name), *(f"({word})" for word in formats[:1])])


def _pairs(text: str) -> list[tuple[str, str]]:
    lines = (line.partition(":") for line in text.splitlines())
    return [(name.strip(), value.strip()) for name, colon, value in lines if colon]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide about speed; absent ones are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of this checkout, with `+` where files differ from it; None for an installed package."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(here, "status", "--porcelain", "--", str(here.parent)) else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
