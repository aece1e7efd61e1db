import pytest

from g2vlm.bench.goals import goal_of
from g2vlm.bench.many_views import stitching_figures
from g2vlm.bench.presets import Preset
from g2vlm.bench.stitching_report import StitchingReport


def reported(num_frames: int, error_closed: float) -> StitchingReport:
    return StitchingReport(
        num_frames=num_frames,
        path_m=50.0,
        error_closed=error_closed,
        error_open=0.02,
        loops_proposed=3,
        loops_closed=2,
        peak_bytes=1_000_000 + 10_000 * num_frames,
        points=100,
        seconds=1.0,
    )


@pytest.mark.parametrize(("error", "met"), [(0.004, True), (0.03, False)])
def test_walks_are_judged_by_their_error_and_growth(error, met):
    found = stitching_figures(reported(100, error), reported(400, error))
    figures = {figure.key: figure for figure in found}
    assert figures["stitching/error"].value == pytest.approx(error * 100)
    assert figures["stitching/memory_growth"].value == pytest.approx(10.0)
    for key in ("stitching/error", "stitching/loop_gain"):
        goal = goal_of(figures[key], Preset.TINY.value)
        assert goal is not None
        assert goal[1] is met
    assert "400 frames" in figures["stitching/error"].label
