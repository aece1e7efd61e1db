"""What is taken by default stands beside every plain choice."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from g2vlm.bench import paths
from g2vlm.bench.goals import goal_of
from g2vlm.bench.presets import Preset
from g2vlm.bench.results import Measurement, Section, read_report
from g2vlm.bench.session import Plan, Session, open_session
from g2vlm.cli.main import main
from g2vlm.inference.decoding import Decoding
from g2vlm.model.capabilities.paths import FastPath, Verdict
from g2vlm.model.integer import Int8Linear, IntegerLinear
from g2vlm.model.native.linear import NativeLinear
from g2vlm.model.precision import Precision
from g2vlm.model.quantization import Quantization


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_every_choice_is_timed_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "_precisions", lambda session: list(Precision))
    monkeypatch.setattr(Session, "quantizations", [Quantization.INT8])
    monkeypatch.setattr(paths, "PHOTO_TOKENS", 30)
    words = ["bench", "--preset", "tiny", "--only", "paths", "--budget_s", "0", "--device", "cpu"]
    assert main([*words, "--json", str(tmp_path / "report.json")]) == 0
    figures = {figure.key: figure for figure in read_report(tmp_path / "report.json").figures}
    assert {figure.section for figure in figures.values()} == {Section.PATHS}
    for work in paths.LABELS:
        ends = {key.rpartition("/")[2] for key in figures if key.startswith(f"paths/none/{work}/")}
        assert ends == {"default", "float32", "bfloat16", "ratio"}
    for work in paths.OF_LANGUAGE:
        ends = {key.rpartition("/")[2] for key in figures if key.startswith(f"paths/int8/{work}/")}
        assert ends == {"default", "plain", "ratio"}
    assert "paths/int8/reconstruct/ratio" not in figures
    assert "int8 beside plain passes" in capsys.readouterr().err


def test_the_best_plain_choice_counts() -> None:
    samples = {"default": (2.0, 2.0), "float32": (8.0, 8.0), "bfloat16": (1.0, 3.0)}
    found = {figure.key: figure for figure in paths._figures("paths/none/decode", "decoding", samples)}
    ratio = found["paths/none/decode/ratio"]
    assert ratio.samples == (0.5, 1.5)
    assert ratio.note == "the best plain choice: bfloat16"
    goal = goal_of(ratio, "few-layer-2b")
    assert goal is not None
    assert goal[1]
    slow = Measurement("paths/none/decode/ratio", "", 0.89, "x", ratio.better)
    missed = goal_of(slow, "few-layer-2b")
    assert missed is not None
    assert not missed[1]


def test_plain_models_take_no_fast_path() -> None:
    plan = Plan(Preset.TINY, device="cpu")
    with open_session(plan, lambda text: None) as session:
        model = paths._plain(session, Precision.BFLOAT16)
        smaller = paths._rival(session, Quantization.INT8, model)["plain"]
    fast = (IntegerLinear, NativeLinear)
    for one in (model, smaller):
        assert one.decoding is Decoding.PLAIN
        assert not any(isinstance(layer, fast) for layer in one.network.modules())
    assert any(isinstance(layer, Int8Linear) for layer in smaller.network.modules())


@pytest.mark.parametrize(("seconds", "left_out"), [(0.9, False), (2.0, False), (4.0, True)])
def test_bfloat16_for_which_nobody_would_wait_is_left_out(
    seconds: float, left_out: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Verdict(FastPath.BFLOAT16, 0.0, 1.0, 1.0, seconds, settled=True)
    monkeypatch.setattr(paths, "verdict", lambda path: found)
    said: list[str] = []
    session = Session(Plan(Preset.TINY, device="cpu"), tmp_path, said.append)
    assert (Precision.BFLOAT16 not in paths._precisions(session)) is left_out
    assert [line.startswith("bfloat16 is left out") for line in said] == [True] * left_out
    chosen = Session(Plan(Preset.TINY, device="cpu", dtype="bfloat16"), tmp_path, said.append)
    assert paths._precisions(chosen) == [Precision.BFLOAT16]
