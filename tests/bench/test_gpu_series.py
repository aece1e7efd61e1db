"""What is measured about a GPU, gone through on the CPU at reduced size, and continued."""

import json
from pathlib import Path

import pytest
import torch

from g2vlm.bench.gpu import series
from g2vlm.bench.gpu.slices import VIEWS_ON_A_GPU, Slice, slices_for
from g2vlm.bench.results import Measurement, read_report
from g2vlm.cli.main import main
from g2vlm.errors import DeviceError
from g2vlm.evaluation.results import Better

REDUCED = ["bench", "--gpu", "--device", "cpu", "--preset", "tiny", "--views", "1,2", "--repeats", "1"]


@pytest.mark.slow
def test_all_slices_at_reduced_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*REDUCED, "--folder", str(tmp_path / "gpu"), "--json", str(tmp_path / "all.json"), "--markdown"]
    assert main(words) == 0
    report = read_report(tmp_path / "all.json")
    keys = {figure.key for figure in report.figures}
    assert keys >= {
        "equality/float32/depth",
        "equality/float32/tokens",
        "load/seconds",
        "reconstruct/1/forward",
        "reconstruct/2/whole",
        "memory/reconstruct/2/peak",
        "memory/perceive/1/peak",
        "decode/plain",
    }
    forward, equal = report.figure("reconstruct/2/forward"), report.figure("equality/float32/tokens")
    assert forward is not None
    assert forward.fraction is not None
    assert equal is not None
    assert equal.value == 100
    table = capsys.readouterr().out
    for name in slices_for((1, 2)):
        assert (tmp_path / "gpu" / f"{name.name}.json").is_file()
    # What this machine cannot do is told with the reason, not left out.
    for name, reason in report.options["missing"].items():
        assert reason
        assert f"Not measured: {name}: " in table


def measured(folder: Path, *words: str) -> int:
    return main([*REDUCED, "--folder", str(folder), *words])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the slices that were measured; that of the second fails the first time."""
    done: list[str] = []

    def measure(name: str) -> object:
        def run(session: object) -> list[Measurement]:
            done.append(name)
            if name == "second" and done.count(name) == 1:
                raise DeviceError("Expected a faster machine, got this one.")
            return [Measurement(f"decode/{name}", name, 1.0, "s", Better.LOWER)]

        return run

    slices = tuple(Slice(name, measure(name)) for name in ("first", "second", "third"))  # type: ignore[arg-type]
    monkeypatch.setattr(series, "slices_for", lambda views: slices)
    return done


def test_the_same_command_continues(
    tmp_path: Path, counted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert measured(tmp_path, "--max_minutes", "0") == 0
    assert counted == ["first"]
    assert measured(tmp_path, "--markdown") == 0
    assert counted == ["first", "second", "third"]
    assert "Not measured: second: Expected a faster machine" in capsys.readouterr().out
    # What was missing may be there by now: it is tried again, and nothing else.
    assert measured(tmp_path, "--markdown", "--json", str(tmp_path / "all.json")) == 0
    assert counted == ["first", "second", "third", "second"]
    assert "Not measured" not in capsys.readouterr().out
    report = read_report(tmp_path / "all.json")
    assert [figure.key for figure in report.figures] == ["decode/first", "decode/second", "decode/third"]
    assert set(report.options["slices"]) == {"first", "second", "third"}


def test_slices_of_another_machine_are_not_mixed(
    tmp_path: Path, counted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert measured(tmp_path, "--slices", "first") == 0
    path = tmp_path / "first.json"
    stored = json.loads(path.read_text())
    stored["machine"]["processor"] = "another one"
    path.write_text(json.dumps(stored))
    assert measured(tmp_path) == 2
    assert "name another folder" in capsys.readouterr().err


def test_unknown_slices_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measured(tmp_path, "--slices", "views-3") == 2
    assert "views-2" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--gpu", "--folder", str(tmp_path / "gpu")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "Expected a CUDA GPU for --gpu" in said
    assert "--device cpu --preset tiny" in said
    assert not (tmp_path / "gpu").exists()


def test_a_torch_with_cuda_but_no_gpu_points_at_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="nvidia-smi"):
        series.require_gpu("auto")


def test_numbers_of_views_reach_two_hundred() -> None:
    names = [one.name for one in slices_for(VIEWS_ON_A_GPU)]
    assert {"views-1", "views-200", "decode-plain", "decode-compiled", "decode-int8"} <= set(names)
