"""`g2vlm doctor`: is this machine ready, and a checkpoint what it should be; if not, what to do."""

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from g2vlm.cli.shared.streams import ResultStream
from g2vlm.cli.shared.terminal import format_bytes, leave_to_download, reserved_stdout, say, write_json
from g2vlm.errors import G2VLMError
from g2vlm.scene.writing import atomic_path, check_file

if TYPE_CHECKING:
    from g2vlm.evaluation.checkup.examination import Checkup
    from g2vlm.evaluation.checkup.rows import Row

EXIT_UNFIT = 1
FULL_MODEL_BYTES_BF16 = 9.1e9
FULL_MODEL_BYTES_DISK = 18.2e9
RECOMMENDED_MEMORY_BYTES = 16e9

EXTRAS = {
    "heif": ("pillow_heif", "HEIC photos from phones"),
    "colmap": ("pycolmap", "COLMAP export"),
    "train": ("tensorboard", "training curves"),
    "bench": ("matplotlib", "figures of benchmark results"),
}
"""Extra of the package -> module it brings, and what that is for."""


class State(Enum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    subject: str
    """What was looked at."""
    state: State
    """How it came out."""
    found: str
    """What there is."""
    advice: str = ""
    """What to do about it; empty where nothing needs doing."""

    def __str__(self) -> str:
        """`[warn] memory: 7.8 GB: use --max_views`."""
        advice = f": {self.advice}" if self.advice else ""
        return f"[{self.state.value:>4}] {self.subject}: {self.found}{advice}"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Check this machine and installation; every line says what there is and, where needed, what to do.

    With --ckpt also prove a checkpoint, on photos of the package whose truth is known: its files, its weights
    in memory, depth, cameras, preparation of pictures, answers. That takes seconds with a small model, about
    a minute with the released one on a GPU, some minutes on a CPU. Exits with 1 if something is missing
    without which nothing runs, or the checkpoint is other than expected.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "g2vlm doctor",
        "g2vlm doctor --ckpt InternRobotics/G2VLM-2B-MoT --report report.md",
    )

    ckpt: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Prove this checkpoint: a folder, a hub id, or g2vlm-tiny."""
    report: Path | None = None
    """With --ckpt: write a report in Markdown to this file, to paste into an issue."""
    download: bool = False
    """Fetch a hub's checkpoint that is not in the cache."""
    device: str = "auto"
    """With --ckpt: auto, cpu, cuda, cuda:1, mps."""
    dtype: str = "auto"
    """With --ckpt: auto, bfloat16 or float32."""
    json: bool = False
    """Print one JSON object to stdout and nothing else there."""


def run(options: Options) -> int:
    """Run every check, print a line for each; then prove the checkpoint, if one is named."""
    if options.report is not None:
        check_file(options.report)
    with reserved_stdout() as out:
        findings = []
        for check in CHECKS:
            for finding in check():
                findings.append(finding)
                if not options.json:
                    out.write(f"{finding}\n")
        unfit = any(finding.state is State.FAIL for finding in findings)
        found = None if options.ckpt is None or unfit else _prove(options, out)
        if options.json:
            rows = [{**asdict(finding), "state": finding.state.value} for finding in findings]
            write_json(out, {"findings": rows, **({} if found is None else {"checkpoint": _as_json(found)})})
    return EXIT_UNFIT if unfit or (found is not None and not found.passed) else 0


def _prove(options: Options, out: ResultStream) -> "Checkup":
    """Prove a checkpoint, a line for each row, and write the report."""
    from g2vlm.checkpoints.hub import choose_checkpoint
    from g2vlm.evaluation.checkup.examination import check_up
    from g2vlm.evaluation.checkup.report import format_checkup
    from g2vlm.opening import load

    choice = choose_checkpoint(options.ckpt, may_download=leave_to_download(options.download))
    say(f"checkpoint: {choice}")
    found = check_up(
        choice.folder,
        choice.name,
        lambda: load(choice.folder, device=options.device, dtype=options.dtype),
        on_row=lambda row: None if options.json else out.write(_row_line(row)),
        on_step=lambda text: say(f"  {text} ..."),
    )
    if options.report is not None:
        with atomic_path(options.report) as temporary:
            temporary.write_text(format_checkup(found, _facts(options)), encoding="utf-8")
        out.kept(options.report)
    verdict = "as expected" if found.passed else "NOT as expected"
    say(f"{choice.name} is {verdict}; {found.seconds:.0f} s")
    return found


def _row_line(row: "Row") -> str:
    mark = {True: "  ok", False: "fail", None: "   ?"}[row.passed]
    beside = f"; expected: {row.expected}" if row.expected else ""
    fault = f"; a fault gives: {row.broken}" if row.broken else ""
    return f"[{mark}] {row.subject}: {row.found}{beside}{fault}\n"


def _as_json(found: "Checkup") -> dict[str, object]:
    return {
        "name": found.name,
        "passed": found.passed,
        "seconds": found.seconds,
        "rows": [asdict(row) for row in found.rows],
        "recording": None if found.recording is None else asdict(found.recording),
    }


def _facts(options: Options) -> dict[str, str]:
    """What decides about results besides the checkpoint."""
    import torch

    from g2vlm.bench.machine import commit, processor_name, versions
    from g2vlm.model.precision import choose_placement

    placement = choose_placement(options.device, options.dtype)
    on_gpu = placement.device.type == "cuda"
    return {
        "processor": processor_name(),
        "device": torch.cuda.get_device_name(placement.device) if on_gpu else placement.device.type,
        "precision": placement.precision.value,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "commit": commit() or "installed package",
    }


def check_python() -> Iterable[Finding]:
    """Version of the interpreter."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("python", State.OK, found)


def check_torch() -> Iterable[Finding]:
    """Whether torch imports, and its number of threads."""
    try:
        import torch
    except (ImportError, OSError) as error:
        advice = "reinstall it, for example  pip install --force-reinstall torch"
        yield Finding("torch", State.FAIL, f"does not import ({error})", advice)
        return
    yield Finding("torch", State.OK, f"{torch.__version__}, {torch.get_num_threads()} threads")


def check_device() -> Iterable[Finding]:
    """GPUs that torch can use."""
    import torch

    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        found = f"{properties.name}, {format_bytes(properties.total_memory)}"
        small = properties.total_memory < 1.3 * FULL_MODEL_BYTES_BF16
        advice = "too little for the full model: use --device cpu for it" if small else ""
        yield Finding(f"cuda:{index}", State.WARN if small else State.OK, found, advice)
    if torch.cuda.is_available():
        return
    if torch.backends.mps.is_available():
        yield Finding("gpu", State.OK, "Apple GPU (--device mps, float32)")
        return
    advice = "the full model runs on the CPU, in minutes rather than seconds"
    yield Finding("gpu", State.WARN, "none that torch can use", advice)


def check_paths() -> Iterable[Finding]:
    """Which fast paths this processor takes, with what was measured; some seconds where nothing was yet."""
    import torch

    from g2vlm.model.capabilities.deciding import verdict
    from g2vlm.model.capabilities.paths import FastPath

    if torch.cuda.is_available():
        return
    for path in FastPath:
        found = verdict(path)
        missing = found.error is None
        advice = "the plain way is taken, which is slower" if missing else ""
        yield Finding(f"path {path.value}", State.WARN if missing else State.OK, str(found), advice)


def check_memory() -> Iterable[Finding]:
    """Memory of the machine, or the limit of the container."""
    total = _memory_bytes()
    if total is None:
        yield Finding("memory", State.WARN, "unknown on this system", "the full model needs about 16 GB")
    elif total < RECOMMENDED_MEMORY_BYTES:
        advice = "the full model in bfloat16 needs about 16 GB; smaller checkpoints run"
        yield Finding("memory", State.WARN, format_bytes(total), advice)
    else:
        yield Finding("memory", State.OK, format_bytes(total))


def check_disk() -> Iterable[Finding]:
    """Space where the hub's cache lies."""
    from g2vlm.checkpoints.places import DEFAULT_REPO, cache_folder, is_cached

    cache = cache_folder()
    place = next(parent for parent in (cache, *cache.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    found = f"{format_bytes(free)} free at {place}"
    if free < FULL_MODEL_BYTES_DISK and not is_cached(DEFAULT_REPO):
        advice = (
            f"the full checkpoint takes {format_bytes(FULL_MODEL_BYTES_DISK)}: free some or set HF_HUB_CACHE"
        )
        yield Finding("disk", State.WARN, found, advice)
    else:
        yield Finding("disk", State.OK, found)


def check_extras() -> Iterable[Finding]:
    """Optional dependencies."""
    for extra, (module, purpose) in EXTRAS.items():
        if importlib.util.find_spec(module) is not None:
            yield Finding(f"extra {extra}", State.OK, f"{purpose}: installed")
        else:
            advice = f"if you want that, run  pip install 'g2vlm[{extra}]'"
            yield Finding(f"extra {extra}", State.WARN, f"{purpose}: not installed", advice)


def check_checkpoint() -> Iterable[Finding]:
    """The checkpoint that commands take if none is named; the network is not used."""
    from g2vlm.checkpoints.hub import choose_checkpoint

    try:
        choice = choose_checkpoint(may_download=False)
    except G2VLMError:
        advice = "run  g2vlm download , or name a folder with --ckpt"
        yield Finding("checkpoint", State.WARN, "none on this machine", advice)
    else:
        yield Finding("checkpoint", State.OK, f"{choice.name} ({choice.origin.value}: {choice.folder})")


CHECKS: tuple[Callable[[], Iterable[Finding]], ...] = (
    check_python,
    check_torch,
    check_device,
    check_paths,
    check_memory,
    check_disk,
    check_extras,
    check_checkpoint,
)


def _memory_bytes() -> int | None:
    """Physical memory, or less where a control group (a container) allows less."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(total, int(text)) if text.isdigit() else total
