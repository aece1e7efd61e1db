"""A whole run on the tiny preset, through the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from g2vlm.bench import agreement, runner
from g2vlm.bench.loading import slope
from g2vlm.bench.presets import Preset, sizes_of, synthetic_photos
from g2vlm.bench.results import Section, keys_are_unique, read_report
from g2vlm.bench.session import Plan, open_session
from g2vlm.cli.main import main
from g2vlm.errors import InputError

QUICK = ["--preset", "tiny", "--views", "1,2", "--question_views", "2", "--budget_s", "0", "--device", "cpu"]
"""Without time for more than the round that warms up, which counts then."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The smallest network is slower with several, above all beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bench(*words: str) -> int:
    return main(["bench", *QUICK, "--dtype", "bfloat16", *words])


def test_everything_inside_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(agreement, "ROOMS", 3)
    path, history = tmp_path / "report.json", tmp_path / "history.jsonl"
    only = ["--only", "limits,reconstruct,questions,decode,agreement,selection"]
    keep = ["--json", str(path), "--history", str(history), "--plot", str(tmp_path / "plot.svg")]
    assert bench(*only, *keep) == 0
    report = read_report(path)
    assert keys_are_unique(report.figures)
    assert {figure.section for figure in report.figures} == {
        Section.LIMITS,
        Section.RECONSTRUCT,
        Section.QUESTIONS,
        Section.DECODE,
        Section.AGREEMENT,
        Section.SELECTION,
    }
    assert all(figure.value > 0 for figure in report.figures)
    identical = report.figure("questions/2/identical")
    assert identical is not None
    assert identical.value == 100
    forward = report.figure("reconstruct/2/forward")
    assert forward is not None
    assert forward.fraction is not None
    assert len(history.read_text().splitlines()) == 1
    assert (tmp_path / "plot.svg").is_file()

    assert main(["bench", "--from_json", str(path), "--markdown"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("\n| ") == 2 + len(report.figures)


def test_memory_and_loading_in_processes_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    words = ["--memory_views", "1,3", "--only", "load memory", "--checkpoint", str(tmp_path / "weights")]
    assert bench(*words, "--json", str(path)) == 0
    figures = {figure.key: figure for figure in read_report(path).figures}
    assert set(figures) == {
        "load/seconds",
        "load/again",
        "load/peak_memory",
        *(
            f"memory/{kind}/{what}"
            for kind in ("reconstruct", "perceive")
            for what in ("1/peak", "3/peak", "growth")
        ),
    }
    stored = (tmp_path / "weights" / "model.safetensors").stat().st_size
    limit = figures["load/peak_memory"].limit
    assert limit is not None
    assert 0.3 * stored < limit * 1e6 < stored  # weights are kept in bfloat16, those of the heads in float32


def test_a_kept_checkpoint_is_used_again(tmp_path: Path) -> None:
    said: list[str] = []
    plan = Plan(Preset.TINY, checkpoint=tmp_path)
    for _ in range(2):
        with open_session(plan, said.append) as session:
            assert session.folder == tmp_path
    assert said == ["writing random weights of tiny"]
    with (
        pytest.raises(InputError, match="another folder"),
        open_session(Plan(Preset.FEW_LAYER_2B, checkpoint=tmp_path), said.append),
    ):
        pass


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--views", "1,two"], "--views"),
        (["--views", "0"], "1 or more"),
        (["--memory_views", ""], "memory_views"),
        (["--only", "everything"], "limits, equality, load"),
        (["--repeats", "0"], "repeats"),
        (["--threads", "0"], "--threads"),
    ],
)
def test_mistakes_are_explained(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(*words) == 2
    assert said in capsys.readouterr().err


def test_a_regression_sets_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history, path = tmp_path / "history.jsonl", tmp_path / "report.json"
    assert bench("--only", "questions", "--json", str(path), "--history", str(history)) == 0
    stored = json.loads(path.read_text())
    for figure in stored["figures"]:
        figure["value"] *= 100 if figure["better"] == "lower" else 0.01
        figure["limit"] = None
    worse = tmp_path / "worse.json"
    worse.write_text(json.dumps(stored))
    assert main(["bench", "--from_json", str(worse), "--history", str(history)]) == 1


def test_every_section_has_a_measure() -> None:
    assert set(runner.MEASURES) == set(Section)


def test_photos_and_sizes() -> None:
    photos = synthetic_photos(2, (112, 84))
    assert [photo.size for photo in photos] == [(112, 84)] * 2
    assert photos[0].tobytes() != photos[1].tobytes()
    for preset in Preset:
        sizes = sizes_of(preset)
        assert sizes.photo_size[0] == sizes.config.image_width
        assert sizes.photo_size[1] % sizes.config.geometric_encoder.patch_size == 0


def test_slope() -> None:
    assert slope({4: 10.0, 8: 18.0, 16: 34.0}) == pytest.approx(2.0)
