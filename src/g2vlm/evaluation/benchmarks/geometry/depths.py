"""Depth of single images of NYU-v2, and of videos of Bonn, KITTI and Sintel.

Sources: NYU-v2 (Silberman et al. 2012, research), Bonn RGB-D Dynamic (Palazzolo et al. 2019,
ipb.uni-bonn.de), KITTI depth selection (Uhrig et al. 2017, CC
BY-NC-SA 3.0), MPI Sintel (Butler et al. 2012).
Layouts: as MonST3R and its followers gather them,

    nyu_images/NAME.png and nyu_depths/NAME.npy (metres) of the 654 test images of NYU-v2, there or in val/
    rgbd_bonn_SEQUENCE/rgb_110/*.png, depth_110/*.png (counts of 1/5000 m), groundtruth_110.txt
    image_gathered/DRIVE/*.png and groundtruth_depth_gathered/DRIVE/*.png (counts of 1/256 m) of KITTI

and Sintel as it is published. Protocol: one image, one ratio of medians (NYU-v2); one scale, and one scale
and offset, for a whole video, the minimisers of the summed absolute differences; depth up to 70 m in Bonn
and Sintel, all in KITTI. Published averages weigh videos by their pixels; here each video counts alike.
Figures of videos that we could source have not been found, so none stand beside them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from g2vlm.data.prepare.files import array_depth, png_depth, pose_of, read_rows
from g2vlm.data.prepare.layout import ListedFrame
from g2vlm.errors import InputError
from g2vlm.evaluation.benchmarks.geometry.sequences import Selection, SequencesBenchmark, evenly
from g2vlm.evaluation.benchmarks.sintel import MAX_DEPTH_M, read_camera, read_depth
from g2vlm.evaluation.geometry import GeometryOptions
from g2vlm.evaluation.metrics.depth import DepthAlignment
from g2vlm.evaluation.posed_frames import DepthLimits, Knowledge
from g2vlm.evaluation.published import G2VLM_PAPER, OMEGA_REPRODUCTION, table

VERSION = 1
NYU_LAYOUT = "NYU-v2's test images as nyu_images/*.png and nyu_depths/*.npy, there or in val/"
BONN_LAYOUT = "Bonn's rgbd_bonn_*/rgb_110/*.png, depth_110/*.png and groundtruth_110.txt"
KITTI_LAYOUT = "KITTI's image_gathered/DRIVE/*.png and groundtruth_depth_gathered/DRIVE/*.png"
SINTEL_LAYOUT = "Sintel's training/final, training/depth and training/camdata_left"
VIDEO = (DepthAlignment.SCALE, DepthAlignment.SCALE_SHIFT)
BONN_SEQUENCES = ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")
BONN_K = np.array([[542.822841, 0, 315.593520], [0, 542.576870, 237.756098], [0, 0, 1]])
"""Colour camera, from the data set's page."""
SINTEL_SEQUENCES = (
    *("alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2", "market_5", "market_6"),
    *("shaman_3", "sleeping_1", "sleeping_2", "temple_2", "temple_3"),
)
"""Those in which the camera moves, as the public evaluations take them."""
NYU_PUBLISHED = table(
    G2VLM_PAPER,
    ("depth/abs_rel", "depth/delta"),
    {
        "G2VLM": (0.062, 0.954),
        "VGGT": (0.056, 0.951),
        "Pi3": (0.054, 0.956),
        "CUT3R": (0.081, 0.914),
        "Fast3R": (0.093, 0.898),
    },
)
SINTEL_PUBLISHED = table(
    OMEGA_REPRODUCTION,
    ("pose/auc30", "depth/abs_rel"),
    {
        "VGGT": (0.500, 0.189),
        "Pi3": (0.535, 0.144),
        "DA3": (0.527, 0.118),
        "VGGT-Omega (retrained)": (0.734, 0.094),
    },
)
_UNKNOWN_K = np.eye(3)


def nyu(folder: Path, num_scenes: int | None = None) -> SequencesBenchmark:
    """Test images of NYU-v2, each by itself.

    Raises:
        InputError: no pictures are there.
    """
    root = folder / "val" if (folder / "val" / "nyu_images").is_dir() else folder
    pictures = {path.stem: path for path in sorted((root / "nyu_images").glob("*.png"))}

    def frames_of(name: str) -> Sequence[ListedFrame]:
        depth = array_depth(root / "nyu_depths" / f"{name}.npy")
        return [ListedFrame(name, pictures[name], _UNKNOWN_K, np.eye(4), depth=depth)]

    return SequencesBenchmark(
        f"nyu-{VERSION}",
        NYU_LAYOUT,
        folder,
        evenly(list(pictures), num_scenes),
        frames_of,
        geometry_options=GeometryOptions(points=False),
        knows=Knowledge(poses=False, intrinsics=False),
    )


def bonn(folder: Path, num_scenes: int | None = None, num_views: int | None = None) -> SequencesBenchmark:
    """The five sequences of the public evaluations, or those of them that are there.

    Raises:
        InputError: none is there.
    """
    names = [name for name in BONN_SEQUENCES if (folder / f"rgbd_bonn_{name}" / "rgb_110").is_dir()]

    def frames_of(name: str) -> Sequence[ListedFrame]:
        place = folder / f"rgbd_bonn_{name}"
        pictures, depths = (
            sorted((place / "rgb_110").glob("*.png")),
            sorted((place / "depth_110").glob("*.png")),
        )
        poses = read_rows(place / "groundtruth_110.txt", columns=8)
        if not len(pictures) == len(depths) == len(poses):
            raise InputError(
                f"Expected as many depths and poses as pictures in {place}, got {len(depths)}, {len(poses)} "
                f"and {len(pictures)}."
            )
        return [
            ListedFrame(p.stem, p, BONN_K, pose_of(row[1:4], row[4:8]), depth=png_depth(d, 1 / 5000))
            for p, d, row in zip(pictures, depths, poses, strict=True)
        ]

    # Poses are those of the markers' frame, not of the camera: only depth is compared.
    return _video("bonn", BONN_LAYOUT, folder, (evenly(names, num_scenes), frames_of, num_views), 70.0)


def kitti(folder: Path, num_scenes: int | None = None, num_views: int | None = None) -> SequencesBenchmark:
    """Drives of KITTI's depth selection, at most 110 frames of each as gathered.

    Raises:
        InputError: no drive is there.
    """
    names = sorted(path.name for path in (folder / "image_gathered").glob("*") if path.is_dir())

    def frames_of(name: str) -> Sequence[ListedFrame]:
        truths = folder / "groundtruth_depth_gathered" / name
        pictures = sorted((folder / "image_gathered" / name).glob("*.png"))
        depths = sorted(truths.glob("*.png"))
        if len(pictures) != len(depths):
            raise InputError(f"Expected {len(pictures)} depths in {truths}, got {len(depths)}.")
        return [
            ListedFrame(picture.stem, picture, _UNKNOWN_K, np.eye(4), depth=png_depth(depth, 1 / 256))
            for picture, depth in zip(pictures, depths, strict=True)
        ]

    chosen = (evenly(names, num_scenes), frames_of, num_views)
    return _video("kitti_depth", KITTI_LAYOUT, folder, chosen, np.inf)


def sintel_videos(
    folder: Path, num_scenes: int | None = None, num_views: int | None = None
) -> SequencesBenchmark:
    """Films of Sintel with a moving camera: depth of the whole film, and its trajectory.

    Raises:
        InputError: none is there.
    """
    training = folder / "training"
    names = [name for name in SINTEL_SEQUENCES if (training / "final" / name).is_dir()]

    def frames_of(name: str) -> Sequence[ListedFrame]:
        frames = []
        for path in sorted((training / "final" / name).glob("frame_*.png")):
            K, T_camera_world = read_camera(training / "camdata_left" / name / f"{path.stem}.cam")
            depth = partial(_dpt, training / "depth" / name / f"{path.stem}.dpt")
            frames.append(ListedFrame(path.stem, path, K, np.linalg.inv(T_camera_world), depth=depth))
        return frames

    return SequencesBenchmark(
        f"sintel_videos-{VERSION}",
        SINTEL_LAYOUT,
        folder,
        evenly(names, num_scenes),
        frames_of,
        Selection(1, num_views),
        GeometryOptions(max_depth=MAX_DEPTH_M, alignments=VIDEO, points=False),
    )


def _dpt(path: Path) -> np.ndarray:
    return read_depth(path).astype(np.float64)


def _video(
    name: str,
    layout: str,
    folder: Path,
    chosen: tuple[tuple[str, ...], Callable[[str], Sequence[ListedFrame]], int | None],
    farthest: float,
) -> SequencesBenchmark:
    names, frames_of, num_views = chosen
    return SequencesBenchmark(
        f"{name}-{VERSION}",
        layout,
        folder,
        names,
        frames_of,
        Selection(1, num_views),
        GeometryOptions(alignments=VIDEO, points=False),
        DepthLimits(0.0, farthest),
        Knowledge(poses=False, intrinsics=False),
    )
