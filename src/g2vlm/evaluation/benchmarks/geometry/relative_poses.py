"""Relative poses of Co3Dv2, RealEstate10K and ScanNet-1500.

Sources, layouts and licences of the first two stand in `data.prepare` (`objects.co3d`,
`outdoor.realestate10k`). ScanNet-1500 is the list of pairs of SuperGlue (Sarlin et al. 2020) as LoFTR
publishes it: test.npz with `name` (scene, scan, first, second) and `rel_pose` (3x4, first to second
camera), beside scans_test/scene0707_00/color/15.jpg and intrinsic/intrinsic_color.txt (ScanNet's terms of
use).
Protocol of PoseDiffusion, VGGT and the G2VLM paper: ten frames drawn from each sequence (here with a seed
of ours), all pairs, the larger of the two angles, translations folded to 0..90 degrees. Co3Dv2: sequences
of at least 50 frames of the 20 categories that VGGT evaluates; VGGT averages categories, here all pairs
count alike and categories stand apart in the table.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from g2vlm.data.prepare.files import inverse, read_matrix, square
from g2vlm.data.prepare.layout import ListedFrame
from g2vlm.data.prepare.objects.co3d import Co3d
from g2vlm.data.prepare.outdoor.realestate10k import RealEstate10k
from g2vlm.errors import InputError
from g2vlm.evaluation.benchmarks.geometry.sequences import (
    Selection,
    SequencesBenchmark,
    evenly,
    scenes_of,
    sound_frames,
)
from g2vlm.evaluation.benchmarks.geometry.surfaces import expected
from g2vlm.evaluation.posed_frames import Knowledge
from g2vlm.evaluation.published import G2VLM_PAPER, table

VERSION = 1
NUM_VIEWS = 10
LEAST_FRAMES = 50
CATEGORIES = (
    *(
        "apple",
        "backpack",
        "bench",
        "book",
        "bowl",
        "car",
        "cellphone",
        "donut",
        "frisbee",
        "handbag",
        "hotdog",
    ),
    *("hydrant", "motorcycle", "parkingmeter", "pizza", "stopsign", "teddybear", "toaster", "toybus", "tv"),
)
CO3D_LAYOUT, REALESTATE_LAYOUT = expected(Co3d()), expected(RealEstate10k())
SCANNET_LAYOUT = (
    "ScanNet-1500: test.npz and scans_test/scene0707_00/color/*.jpg, intrinsic/intrinsic_color.txt"
)
CO3D_PUBLISHED = table(
    G2VLM_PAPER,
    ("pose/rra30", "pose/rta30", "pose/auc30"),
    {
        "G2VLM": (97.91, 95.20, 74.81),
        "VGGT": (98.96, 97.13, 88.59),
        "Pi3": (99.05, 97.33, 88.41),
        "CUT3R": (96.19, 92.69, 75.82),
        "Fast3R": (97.49, 91.11, 73.43),
    },
    0.01,
)


def co3d(
    folder: Path, num_scenes: int | None = None, num_views: int | None = None, seed: int = 0
) -> SequencesBenchmark:
    """Sequences of Co3Dv2, at most so many evenly spread; other categories than `CATEGORIES` are left out.

    Raises:
        InputError: the folder is no Co3Dv2, or no sequence is long enough.
    """
    layout = Co3d()
    frames_of = partial(sound_frames, layout, folder)
    names = [name for name in layout.scenes(folder) if name.split("/")[0] in CATEGORIES]
    names = [name for name in names if len(list((folder / name / "images").iterdir())) >= LEAST_FRAMES]
    return SequencesBenchmark(
        f"co3d-{VERSION}",
        f"{CO3D_LAYOUT}, with sequences of at least {LEAST_FRAMES} frames",
        folder,
        evenly(names, num_scenes),
        frames_of,
        Selection(1, num_views or NUM_VIEWS, drawn=True, seed=seed),
        knows=Knowledge(depth=False),
        part_of=lambda scene: scene.split("/")[0],
    )


def realestate10k(
    folder: Path, num_scenes: int | None = None, num_views: int | None = None, seed: int = 0
) -> SequencesBenchmark:
    """Clips of RealEstate10K whose frames are there.

    Raises:
        InputError: no clip has frames.
    """
    layout = RealEstate10k()
    return SequencesBenchmark(
        f"realestate10k-{VERSION}",
        REALESTATE_LAYOUT,
        folder,
        scenes_of(layout, folder, num_scenes),
        partial(sound_frames, layout, folder),
        Selection(1, num_views or NUM_VIEWS, drawn=True, seed=seed),
        knows=Knowledge(depth=False),
    )


def scannet_1500(folder: Path, num_scenes: int | None = None) -> SequencesBenchmark:
    """The pairs of the list, each by itself.

    Raises:
        InputError: the list is missing or malformed.
    """
    try:
        with np.load(folder / "test.npz", allow_pickle=False) as stored:
            pairs, poses = np.asarray(stored["name"]), np.asarray(stored["rel_pose"], dtype=np.float64)
        poses = poses.reshape(-1, 12)
        if pairs.shape != (len(poses), 4):
            raise ValueError(f"{len(poses)} poses for pairs of shape {pairs.shape}")
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"Expected {SCANNET_LAYOUT}; {folder / 'test.npz'}: {error}.") from error
    known: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    counts: dict[str, int] = defaultdict(int)
    for pair, pose in zip(pairs, poses, strict=True):
        scene = f"scene{int(pair[0]):04d}_{int(pair[1]):02d}"
        known[f"{scene}/{counts[scene]:02d}"] = (pair, pose)
        counts[scene] += 1

    def frames_of(name: str) -> Sequence[ListedFrame]:
        pair, pose = known[name]
        scan = folder / "scans_test" / name.split("/")[0]
        K = read_matrix(scan / "intrinsic" / "intrinsic_color.txt")[:3, :3]
        first, second = (scan / "color" / f"{int(number)}.jpg" for number in pair[2:])
        # The published pose takes points from the first camera to the second, which stands at its inverse.
        return [
            ListedFrame(first.stem, first, K, np.eye(4)),
            ListedFrame(second.stem, second, K, inverse(square(pose))),
        ]

    return SequencesBenchmark(
        f"scannet_1500-{VERSION}",
        SCANNET_LAYOUT,
        folder,
        evenly(list(known), num_scenes),
        frames_of,
        knows=Knowledge(depth=False),
    )
