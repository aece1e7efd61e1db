"""From pieces that overlap to one world: neighbours aligned, loops closed, drift spread out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch

from g2vlm.errors import InputError
from g2vlm.geometry.alignment import Similarity
from g2vlm.geometry.pose_graph import (
    SimilarityEdge,
    chain_similarities,
    optimize_pose_graph,
    take_similarity,
)
from g2vlm.video.loops import Loop, LoopCandidate, LoopOptions, check_loop, find_loops, frames_around
from g2vlm.video.overlaps import Overlap, measure_overlap
from g2vlm.video.pieces import Piece, PieceFolder, photos_of
from g2vlm.video.reconstructor import Reconstructor

LOOP_WIDTH = 10.0
"""Deviation, in sigmas of its overlap, from which a loop is doubted (see `SimilarityEdge`)."""


class StitchingStage(Enum):
    """What a long reconstruction is doing."""

    RECONSTRUCT = "reconstructing pieces"
    ALIGN = "aligning neighbours"
    CLOSE = "closing loops"
    MERGE = "merging"


StitchingProgress = Callable[[StitchingStage, int, int | None], None]
"""Called with a stage, steps done and steps in all (None where nobody knows)."""


def no_progress(stage: StitchingStage, done: int, total: int | None) -> None:
    """Say nothing."""


@dataclass(frozen=True, eq=False)
class Stitching:
    """Where the pieces lie."""

    world_from_piece: Similarity
    """One for each piece, float64; the world is the frame and unit of the first piece."""
    chained: Similarity
    """The same from neighbours alone, before loops."""
    loops: tuple[Loop, ...]
    """All candidates that were checked."""
    num_closed: int
    """Loops that hold in the end."""
    deviations: tuple[float, ...]
    """How badly each piece fits the one before it: deviation of shared points relative to their extent."""


@dataclass(frozen=True, eq=False)
class _Chain:
    """The pieces in order, as far as stitching has to remember them."""

    names: tuple[str, ...]
    frames: tuple[tuple[int, ...], ...]
    edges: tuple[SimilarityEdge, ...]
    deviations: tuple[float, ...]
    descriptors: np.ndarray


class Stitcher:
    """Stitches the pieces of one folder; holds a few pieces in memory, whatever their number.

    Args:
        folder: with all pieces.
        reconstruct: what made them; needed again for the joint reconstructions of loops, which are kept in
            the folder as well.
        window: frames of a full piece.
        loops: how loops are found; None leaves them open.
        on_progress: told about every step.
    """

    def __init__(
        self,
        folder: PieceFolder,
        reconstruct: Reconstructor,
        window: int,
        loops: LoopOptions | None,
        on_progress: StitchingProgress = no_progress,
    ) -> None:
        self.folder, self.reconstruct, self.window = folder, reconstruct, window
        self.loops, self.on_progress = loops, on_progress

    def __call__(self, names: Sequence[str]) -> Stitching:
        """Find where the pieces of these names lie; each shares frames with the one before.

        Raises:
            InputError: a piece is damaged, or shares no trusted points with its neighbour.
        """
        chain = self._align(names)
        chained = chain_similarities(len(names), chain.edges)
        checked, edges = self._close(chain)
        if not edges:
            return Stitching(chained, chained, tuple(checked), 0, chain.deviations)
        # The joint reconstructions are nodes of their own, behind the pieces.
        everything = [*chain.edges, *edges]
        num_nodes = 1 + max(edge.second for edge in everything)
        solution = optimize_pose_graph(everything, chain_similarities(num_nodes, everything))
        rejected = {
            edge.second
            for edge, out in zip(everything, solution.rejected.tolist(), strict=True)
            if out and edge.second >= len(names)
        }
        pieces = take_similarity(solution.world_from_node, torch.arange(len(names)))
        num_closed = num_nodes - len(names) - len(rejected)
        return Stitching(pieces, chained, tuple(checked), num_closed, chain.deviations)

    def _align(self, names: Sequence[str]) -> _Chain:
        frames, edges, deviations, descriptors = [], [], [], []
        previous: Piece | None = None
        for index, name in enumerate(names):
            piece = self.folder.read(name)
            if previous is not None:
                overlap = measure_overlap(previous, piece)
                edges.append(overlap.edge(index - 1, index))
                deviations.append(overlap.deviation)
            seen = set() if previous is None else set(previous.frames)
            descriptors.append(piece.descriptors[[frame not in seen for frame in piece.frames]])
            frames.append(piece.frames)
            previous = piece
            self.on_progress(StitchingStage.ALIGN, index + 1, len(names))
        looks = np.concatenate(descriptors)
        return _Chain(tuple(names), tuple(frames), tuple(edges), tuple(deviations), looks)

    def _close(self, chain: _Chain) -> tuple[list[Loop], list[SimilarityEdge]]:
        """Check all candidates; edges from the pieces to the joint reconstructions of those accepted."""
        if self.loops is None:
            return [], []
        candidates = find_loops(chain.descriptors, self.window, self.loops)
        checked: list[Loop] = []
        edges: list[SimilarityEdge] = []
        for done, candidate in enumerate(candidates, start=1):
            loop, overlaps = self._check(candidate, chain)
            checked.append(loop)
            if loop.accepted:
                node = len(chain.names) + sum(one.accepted for one in checked) - 1
                edges += [overlap.edge(piece, node, LOOP_WIDTH) for piece, overlap in overlaps]
            self.on_progress(StitchingStage.CLOSE, done, len(candidates))
        return checked, edges

    def _check(self, candidate: LoopCandidate, chain: _Chain) -> tuple[Loop, list[tuple[int, Overlap]]]:
        assert self.loops is not None
        runs = frames_around(candidate, len(chain.descriptors), self.window)
        wanted = {*runs[0], *runs[1]}
        near = [index for index, frames in enumerate(chain.frames) if len(wanted.intersection(frames)) > 1]
        pieces = {index: self.folder.read(chain.names[index]) for index in near}
        joint = self._joint(candidate, (*runs[0], *runs[1]), list(pieces.values()))
        try:
            overlaps = [(index, measure_overlap(piece, joint)) for index, piece in pieces.items()]
        except InputError:
            # Nothing that both trust: no reason to believe the candidate.
            return Loop(candidate, agreement=0.0, deviation=float("inf"), accepted=False), []
        measured = [overlap for _, overlap in overlaps]
        return check_loop(candidate, joint, len(runs[0]), measured, self.loops), overlaps

    def _joint(self, candidate: LoopCandidate, frames: tuple[int, ...], pieces: Sequence[Piece]) -> Piece:
        """Both places reconstructed together, from the pictures stored with the pieces."""
        name = f"loop_{candidate.first:07d}_{candidate.second:07d}"
        if not self.folder.holds(name):
            views = []
            for frame in frames:
                holder = next(piece for piece in pieces if frame in piece.frames)
                views.append(holder.view_of(frame))
            result = self.reconstruct(*photos_of(tuple(views)))
            self.folder.write(name, Piece(frames, result.views, result.descriptors))
        return self.folder.read(name)
