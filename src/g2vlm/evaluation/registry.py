"""All benchmarks by name."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from g2vlm.data.questions.phrasing.rephrasing import Phrasing
from g2vlm.data.splits import Split
from g2vlm.data.world.config import World
from g2vlm.errors import InputError
from g2vlm.evaluation.benchmarks import frames, question_file, scene_folder, sintel
from g2vlm.evaluation.benchmarks.frames import FramesBenchmark
from g2vlm.evaluation.benchmarks.geometry import (
    depths,
    relative_poses,
    seven_scenes,
    surfaces,
    trajectories,
)
from g2vlm.evaluation.benchmarks.question_file import QuestionFileBenchmark
from g2vlm.evaluation.benchmarks.reasoning import mindcube, omnispatial, ost, spar, vsi
from g2vlm.evaluation.benchmarks.scene_folder import SceneFolderBenchmark
from g2vlm.evaluation.benchmarks.sintel import SintelBenchmark
from g2vlm.evaluation.benchmarks.synthetic import SyntheticBenchmark, Way
from g2vlm.evaluation.grouping import GroupOptions
from g2vlm.evaluation.predictors.baselines import BASELINES
from g2vlm.evaluation.published import Published
from g2vlm.evaluation.trials import Benchmark


@dataclass(frozen=True)
class Request:
    """What a user asks of a benchmark; each benchmark reads what concerns it."""

    width: int
    """The model's image width in pixels."""
    patch: int
    """Side of the model's patches in pixels."""
    data_path: Path | None = None
    """Where the data lies, for benchmarks that need any."""
    first_seed: int = Split.TEST.value[0]
    num_scenes: int | None = None
    """At most so many scenes; the benchmark's own number if None."""
    num_views: int | None = None
    """Views of a scene; the benchmark's own number if None."""
    num_questions: int = 8
    num_missing: int = 0
    """Questions of a synthetic scene about what is not there."""
    reasoned: bool = True
    """Ask for what was measured before the answer, where the benchmark knows how."""
    phrasing: Phrasing = Phrasing.STANDARD
    """In whose words the synthetic questions are asked."""
    other_ways: bool = False
    """Ask the synthetic questions in the other ways too: held-out words, no request to reason."""
    world: World = World.FULL
    allow_train_seeds: bool = False
    seed: int = 0
    """Of choices that a benchmark draws: groups of frames, views of a sequence."""
    own_groups: bool = True
    """Take the groups of frames that a set lists itself, where it does."""


@dataclass(frozen=True)
class Entry:
    """A benchmark that can be asked for."""

    summary: str
    """One line."""
    build: Callable[[Request], Benchmark]
    layout: str = ""
    """What `data_path` must hold; empty where no data is needed."""
    baselines: tuple[str, ...] = ()
    """Simpler methods that are measured beside the model unless told otherwise."""
    published: tuple[Published, ...] = ()
    """What others report on it."""


def _synthetic(request: Request) -> Benchmark:
    return SyntheticBenchmark(
        width=request.width,
        patch=request.patch,
        first_seed=request.first_seed,
        num_scenes=200 if request.num_scenes is None else request.num_scenes,
        num_views=4 if request.num_views is None else request.num_views,
        num_questions=request.num_questions,
        num_missing=request.num_missing,
        reasoned=request.reasoned,
        phrasing=request.phrasing,
        world=request.world,
        other_ways=_other_ways(request),
        allow_train_seeds=request.allow_train_seeds,
    )


def _other_ways(request: Request) -> tuple[Way, ...]:
    """Ways to ask beside the one that is asked for."""
    if not request.other_ways:
        return ()
    return tuple(way for way in Way if (way.phrasing, way.reasoned) != (request.phrasing, request.reasoned))


def _path(request: Request) -> Path:
    assert request.data_path is not None  # `build_benchmark` has checked it
    return request.data_path


def _frames(request: Request) -> Benchmark:
    grouping = GroupOptions(
        size=4 if request.num_views is None else request.num_views,
        num_groups=16 if request.num_scenes is None else request.num_scenes,
        seed=request.seed,
    )
    return FramesBenchmark(_path(request), grouping, request.own_groups)


def _sequences(
    summary: str,
    build: Callable[[Path, int | None, int | None], Benchmark],
    layout: str,
    published: tuple[Published, ...] = (),
) -> Entry:
    """A benchmark of sequences, which takes numbers of scenes and of views."""
    return Entry(
        summary,
        lambda request: build(_path(request), request.num_scenes, request.num_views),
        layout,
        published=published,
    )


BENCHMARKS: dict[str, Entry] = {
    "synthetic": Entry("rendered rooms that no model was trained on: geometry and questions", _synthetic),
    "frames": Entry(
        "real frames of your own with depth and poses, beside classical methods",
        _frames,
        frames.LAYOUT,
        tuple(BASELINES),
    ),
    "scene_folder": Entry(
        "scenes of your own: depth, poses and points",
        lambda request: SceneFolderBenchmark(_path(request), request.num_scenes, request.num_views),
        scene_folder.LAYOUT,
    ),
    "question_file": Entry(
        "questions of your own: choices and numbers",
        lambda request: QuestionFileBenchmark(_path(request), request.num_scenes),
        question_file.LAYOUT,
    ),
    "sintel": Entry(
        "MPI Sintel: depth of single images",
        lambda request: SintelBenchmark(_path(request), request.num_scenes),
        sintel.LAYOUT,
        published=sintel.PUBLISHED,
    ),
    "nyu": Entry(
        "NYU-v2: depth of single images",
        lambda request: depths.nyu(_path(request), request.num_scenes),
        depths.NYU_LAYOUT,
        published=depths.NYU_PUBLISHED,
    ),
    "bonn": _sequences("Bonn: depth of videos", depths.bonn, depths.BONN_LAYOUT),
    "kitti_depth": _sequences("KITTI: depth of videos", depths.kitti, depths.KITTI_LAYOUT),
    "sintel_videos": _sequences(
        "MPI Sintel: depth of videos, and trajectories",
        depths.sintel_videos,
        depths.SINTEL_LAYOUT,
        depths.SINTEL_PUBLISHED,
    ),
    "seven_scenes": _sequences(
        "7-Scenes: points of filmed rooms",
        seven_scenes.seven_scenes,
        seven_scenes.LAYOUT,
        seven_scenes.PUBLISHED,
    ),
    "eth3d": _sequences(
        "ETH3D: points of photographed places",
        surfaces.eth3d,
        surfaces.ETH3D_LAYOUT,
        surfaces.ETH3D_PUBLISHED,
    ),
    "dtu": _sequences("DTU: points of objects", surfaces.dtu, surfaces.DTU_LAYOUT),
    "nrgbd": _sequences(
        "Neural RGB-D: points of rendered rooms",
        surfaces.nrgbd,
        surfaces.NRGBD_LAYOUT,
        surfaces.NRGBD_PUBLISHED,
    ),
    "co3d": Entry(
        "Co3Dv2: relative poses around objects",
        lambda request: relative_poses.co3d(
            _path(request), request.num_scenes, request.num_views, request.seed
        ),
        relative_poses.CO3D_LAYOUT,
        published=relative_poses.CO3D_PUBLISHED,
    ),
    "realestate10k": Entry(
        "RealEstate10K: relative poses of house tours",
        lambda request: relative_poses.realestate10k(
            _path(request), request.num_scenes, request.num_views, request.seed
        ),
        relative_poses.REALESTATE_LAYOUT,
    ),
    "scannet_1500": Entry(
        "ScanNet-1500: relative poses of pairs",
        lambda request: relative_poses.scannet_1500(_path(request), request.num_scenes),
        relative_poses.SCANNET_LAYOUT,
    ),
    "tum": _sequences(
        "TUM RGB-D: trajectories", trajectories.tum, trajectories.TUM_LAYOUT, trajectories.TUM_PUBLISHED
    ),
    "scannet": _sequences("ScanNet: trajectories", trajectories.scannet, trajectories.SCANNET_LAYOUT),
    "spar_bench": Entry(
        "SPAR-Bench: depth, distance and relations in one or several views",
        lambda request: spar.spar_bench(_path(request), request.num_scenes),
        spar.LAYOUT,
        published=spar.PUBLISHED,
    ),
    "mindcube": Entry(
        "MindCube: spatial questions about several views",
        lambda request: mindcube.mindcube(_path(request), request.num_scenes),
        mindcube.LAYOUT,
        published=mindcube.PUBLISHED,
    ),
    "ost_bench": Entry(
        "OST-Bench: what a walking agent knows so far",
        lambda request: ost.ost_bench(_path(request), request.num_scenes),
        ost.LAYOUT,
        published=ost.PUBLISHED,
    ),
    "omnispatial": Entry(
        "OmniSpatial: questions about single pictures",
        lambda request: omnispatial.omnispatial(_path(request), request.num_scenes),
        omnispatial.LAYOUT,
        published=omnispatial.PUBLISHED,
    ),
    "vsi_bench": Entry(
        "VSI-Bench: questions about videos of rooms",
        lambda request: vsi.vsi_bench(_path(request), request.num_scenes, request.num_views),
        vsi.LAYOUT,
        published=vsi.PUBLISHED,
    ),
}
"""In the order in which they are listed."""


def find_entry(name: str) -> Entry:
    """A benchmark by name.

    Raises:
        InputError: no such benchmark.
    """
    entry = BENCHMARKS.get(name.replace("-", "_"))
    if entry is None:
        close = difflib.get_close_matches(name, BENCHMARKS, n=1)
        hint = f": did you mean {close[0]}?" if close else "."
        raise InputError(f"Expected a benchmark ({', '.join(BENCHMARKS)}), got {name!r}{hint}")
    return entry


def build_benchmark(name: str, request: Request) -> Benchmark:
    """Make a benchmark by name.

    Raises:
        InputError: no such benchmark, or its data is missing; the message says which layout is expected.
    """
    entry = find_entry(name)
    if entry.layout and (request.data_path is None or not request.data_path.exists()):
        given = (
            "no --data_path" if request.data_path is None else f"{request.data_path}, which does not exist"
        )
        raise InputError(f"Expected the data of {name}: {entry.layout}; got {given}.")
    return entry.build(request)
