"""Long videos and many photos: how true the stitching is, and what reading fewer keys costs."""

import math
from collections.abc import Iterator

from g2vlm.bench.results import MEGA, Measurement, count_of
from g2vlm.bench.session import Session
from g2vlm.bench.simulated_walk import WalkOptions
from g2vlm.bench.stitching_report import StitchingReport, stitching_report
from g2vlm.bench.timing import median
from g2vlm.evaluation.results import Better
from g2vlm.inference.prompts import PromptBuilder
from g2vlm.inference.selection import selection_loss
from g2vlm.model.key_selection import KeySelection

WALK_FRAMES = 400
SHORT_WALK_FRAMES = 100
KEPT_SHARE = 0.25
"""Share of the keys of other views that the measured selection reads."""


def measure_stitching(session: Session) -> Iterator[Measurement]:
    """Errors of a long walk with a loop, its geometry spoiled as networks do, and the memory it takes."""
    session.say("warming up on a short walk")
    stitching_report(WalkOptions(num_frames=20))
    reports = {}
    for frames in (SHORT_WALK_FRAMES, WALK_FRAMES):
        session.say(f"stitching a walk of {frames} frames")
        reports[frames] = stitching_report(WalkOptions(num_frames=frames))
    yield from stitching_figures(reports[SHORT_WALK_FRAMES], reports[WALK_FRAMES])


def stitching_figures(short: StitchingReport, walk: StitchingReport) -> Iterator[Measurement]:
    """Figures of a long walk, and of memory against a short one."""
    loops = f"{walk.loops_closed} of {walk.loops_proposed} proposed loops hold"
    yield Measurement(
        "stitching/error",
        f"camera error over a walk of {walk.num_frames} frames, loops closed",
        walk.error_closed * 100,
        "%",
        Better.LOWER,
        note=f"of the path of {walk.path_m:.0f} m; {loops}; the network is played by the truth, spoiled",
    )
    yield Measurement(
        "stitching/open_error", "  the same without loops", walk.error_open * 100, "%", Better.LOWER
    )
    yield Measurement(
        "stitching/loop_gain",
        "  how much smaller loops make it",
        walk.error_open / walk.error_closed,
        "x",
        Better.HIGHER,
    )
    yield Measurement(
        "stitching/memory_growth",
        "  peak memory for each further frame",
        (walk.peak_bytes - short.peak_bytes) / (walk.num_frames - short.num_frames) / 1e3,
        "kB",
        Better.LOWER,
        note=f"{short.num_frames} to {walk.num_frames} frames; {walk.peak_bytes / MEGA:.1f} MB of arrays and "
        f"objects at the peak, merged cloud included; one frame has {_frame_bytes() / 1e3:.0f} kB of points",
    )


def _frame_bytes() -> int:
    """Points (three float32), colours and confidence of one frame of the walk."""
    options = WalkOptions()
    return options.height * options.width * (3 * 4 + 3 + 4)


def measure_selection(session: Session) -> Iterator[Measurement]:
    """What a reconstruction that reads a quarter of the other views' keys loses against the dense pass."""
    views = max(2, *session.plan.views)
    session.say(f"reconstructing {count_of(views)} densely and with chosen keys")
    session.model.reconstruct(session.photos(1))  # loads what is still missing
    images = session.images(views)
    keys = max(1, round(session.patches(images) * KEPT_SHARE))
    prompts = PromptBuilder(session.model.tokenizer, session.sizes.config, session.device)
    network, pixels = session.model.network, images.to(session.device)
    rounds = [
        selection_loss(network, prompts, pixels, KeySelection(keys_per_view=keys))
        for _ in range(session.plan.repeats)
    ]
    samples = tuple(one.dense_s / one.selected_s for one in rounds)
    found = rounds[-1]
    base = f"selection/{views}"
    yield Measurement(
        f"{base}/speedup",
        f"{count_of(views)} with {found.keys_read:.0%} of the keys, against all",
        median(samples),
        "x",
        Better.HIGHER,
        samples=samples,
    )
    yield Measurement(f"{base}/points", "  median change of points", found.points * 100, "%", Better.LOWER)
    yield Measurement(
        f"{base}/rotation",
        "  largest turn of a camera",
        math.degrees(found.rotation_rad),
        "deg",
        Better.LOWER,
    )
    yield Measurement(
        f"{base}/position",
        "  largest shift of a camera, of their extent",
        found.position * 100,
        "%",
        Better.LOWER,
        note="random weights: attention is spread evenly, the worst case for choosing keys",
    )
