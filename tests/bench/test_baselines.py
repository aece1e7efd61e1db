"""llama.cpp in the shape of our semantic expert is timed beside it; without it, the bench says so."""

import sys
from pathlib import Path

import pytest

from g2vlm.bench.baselines.llama_cpp import LlamaCpp, Stored, write_gguf
from g2vlm.bench.goals import goal_of
from g2vlm.bench.results import Measurement, Section, read_report
from g2vlm.cli.main import main
from g2vlm.evaluation.results import Better
from g2vlm.model.config import g2vlm_test

BENCH = ["bench", "--preset", "tiny", "--only", "baselines", "--budget_s", "0", "--device", "cpu"]


def test_without_the_extra_the_bench_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    assert main([*BENCH, "--json", str(tmp_path / "report.json")]) == 0
    assert "g2vlm[bench-baselines]" in capsys.readouterr().err
    assert read_report(tmp_path / "report.json").figures == ()


@pytest.mark.parametrize("stored", list(Stored))
def test_a_file_holds_the_semantic_expert(tmp_path: Path, stored: Stored) -> None:
    gguf = pytest.importorskip("gguf")
    config = g2vlm_test().mixture
    write_gguf(tmp_path / "model.gguf", config, stored)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    matrices = [tensor for tensor in tensors.values() if len(tensor.shape) == 2]
    layer = config.width * (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    layer += config.num_heads * config.head_dim * config.width + 3 * config.width * config.mlp_width
    expected = config.num_layers * layer + 2 * config.vocab_size * config.width
    assert sum(int(tensor.n_elements) for tensor in matrices) == expected
    assert {tensor.tensor_type.name for tensor in matrices} == {stored.value}


def test_llama_cpp_reads_and_decodes_what_it_is_told(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    pytest.importorskip("gguf")
    config = g2vlm_test().mixture
    write_gguf(tmp_path / "model.gguf", config, Stored.Q8_0)
    rival = LlamaCpp(tmp_path / "model.gguf", config.vocab_size, 256, 1)
    done = rival._complete(list(range(1, 41)), 5)
    assert (done["cache_n"] + done["prompt_n"], done["predicted_n"]) == (40, 5)
    behind = rival._complete([*range(1, 41), 99, 98, 97], 1)
    assert behind["prompt_n"] <= 4
    assert rival.seconds_per_token(40, 4) > 0
    assert rival.prefill_seconds(20, 40) > 0


def test_each_language_side_is_compared(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    pytest.importorskip("gguf")
    path = tmp_path / "report.json"
    assert main([*BENCH, "--dtype", "bfloat16", "--json", str(path)]) == 0
    figures = {figure.key: figure for figure in read_report(path).figures}
    assert {figure.section for figure in figures.values()} == {Section.BASELINES}
    for what in ("decode", "question", "photo"):
        for end in ("speed", "llama_cpp", "ratio"):
            assert figures[f"baselines/none/{what}/{end}"].value > 0
    assert figures["baselines/none/decode/ratio"].value == pytest.approx(
        figures["baselines/none/decode/speed"].value / figures["baselines/none/decode/llama_cpp"].value
    )


def test_goals_are_those_of_the_number_of_bits() -> None:
    def bound(key: str) -> float:
        found = goal_of(Measurement(key, "", 1.3, "x", Better.HIGHER), "few-layer-2b")
        assert found is not None
        return found[0].bound

    assert bound("baselines/none/decode/ratio") == 1.5
    assert bound("baselines/int4/photo/ratio") == 1.2
