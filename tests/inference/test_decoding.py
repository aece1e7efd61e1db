"""Native and compiled passes: the same choices as plain ones, and no new graph for every length."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import g2vlm
from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.errors import DeviceError
from g2vlm.inference import decoding as decoders
from g2vlm.inference.decoding import Decoder, Decoding, NativeDecoder, choose_decoding
from g2vlm.model.capabilities.deciding import verdict as found_out
from g2vlm.model.capabilities.paths import FastPath, Verdict
from g2vlm.model.native import library as native
from g2vlm.model.native.linear import NativeLinear
from g2vlm.model.precision import Placement, Precision
from g2vlm.model.quantization import Quantization

QUESTIONS = ("How far is the chair?", "Which of the two tables is nearer?", "What stands behind it?")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("compiled")
    program = [sys.executable, str(Path(__file__).with_name("compiled_answers.py")), str(folder)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_compiled_answers_are_those_of_plain_passes(compiled: dict[str, Any]) -> None:
    assert compiled["compiled"] == compiled["plain"]
    assert min(len(ids) for rows in compiled["plain"] for ids in rows) > 2
    # For one question and for several, behind photos and behind a conversation; whatever the sizes are.
    assert compiled["graphs"] <= 4


def test_compiled_passes_run_in_one_thread_whoever_asks(compiled: dict[str, Any]) -> None:
    assert compiled["from_threads"] == compiled["plain"]
    assert compiled["threads"] == 1
    assert not compiled["own_thread"]
    # One for each thread that asked at the same time; used again, because graphs know their places.
    assert 1 <= compiled["caches"] <= 4


def test_nothing_large_is_copied_for_a_recorded_pass(compiled: dict[str, Any]) -> None:
    """Beginnings that answers share were: a gigabyte a token with many photos."""
    assert not compiled["copied"]


@pytest.mark.needs_compiler
@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
def test_native_answers_are_those_of_plain_passes(tmp_path: Path, quantization: str) -> None:
    folder, rng = random_checkpoint(tmp_path), np.random.default_rng(0)
    model = g2vlm.load(folder, device="cpu", dtype="float32", quantization=quantization, compiled=True)
    perception = model.perceive([rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)])
    assert isinstance(model.decoder(), NativeDecoder)
    native = [perception.ask(question, max_new_tokens=30).token_ids for question in QUESTIONS]
    followed = perception.ask(QUESTIONS[0], max_new_tokens=30, remember=True).token_ids
    followed += perception.ask(QUESTIONS[1], max_new_tokens=30).token_ids
    perception.forget()
    perception._decoder = Decoder(model.network)
    assert native == [perception.ask(question, max_new_tokens=30).token_ids for question in QUESTIONS]
    expected = perception.ask(QUESTIONS[0], max_new_tokens=30, remember=True).token_ids
    assert followed == expected + perception.ask(QUESTIONS[1], max_new_tokens=30).token_ids
    assert max(len(ids) for ids in native) > 4


@pytest.mark.needs_compiler
def test_native_passes_are_used_for_few_questions_and_not_for_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By name: which way wins here does not matter.
    model = g2vlm.load(random_checkpoint(tmp_path), device="cpu", dtype="float32", compiled=True)
    assert model.decoding is Decoding.NATIVE
    perception = model.perceive([np.zeros((48, 64, 3), dtype=np.uint8)])
    rows: list[int] = []
    plain = Decoder.__call__

    def counted(self: Decoder, tokens: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        rows.append(len(tokens))
        return plain(self, tokens, *rest)

    monkeypatch.setattr(Decoder, "__call__", counted)
    one = perception.ask(QUESTIONS[0], max_new_tokens=5)
    assert not rows
    perception._decoder._pass._max_rows = len(QUESTIONS)
    several = perception.ask_many(QUESTIONS, max_new_tokens=5)
    assert not rows
    many = perception.ask_many([QUESTIONS[0], *QUESTIONS], max_new_tokens=5)
    assert set(rows) == {len(QUESTIONS) + 1}
    assert several[0].token_ids == many[0].token_ids == one.token_ids


def verdict(path: FastPath, *, error: float | None = 0.0, fast_s: float = 1.0) -> Verdict:
    """One that took two seconds the plain way."""
    return Verdict(path, error, 1e-3, 2.0, fast_s, settled=True, reason="no compiler")


def test_the_choice_of_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "verdict", verdict)
    cpu, cuda, mps = (Placement(torch.device(name), Precision.FLOAT32) for name in ("cpu", "cuda", "mps"))
    full, int8 = Quantization.NONE, Quantization.INT8
    assert choose_decoding(cpu, None, full) is choose_decoding(cpu, True, full) is Decoding.NATIVE
    assert choose_decoding(cpu, False, full) is choose_decoding(cuda, None, full) is Decoding.PLAIN
    assert choose_decoding(cuda, True, full) is Decoding.GRAPH
    with pytest.raises(DeviceError, match=r"Expected a CPU or a CUDA GPU .* got mps"):
        choose_decoding(mps, True, full)
    for smaller in (int8, Quantization.INT4):
        with pytest.raises(DeviceError, match=f"full weights on a GPU, got {smaller.value}: without kernels"):
            choose_decoding(cuda, None, smaller)
    monkeypatch.setattr(decoders, "verdict", lambda path: verdict(path, fast_s=3.0))
    assert choose_decoding(cpu, None, int8) is Decoding.PLAIN
    assert choose_decoding(cpu, True, int8) is Decoding.NATIVE, "asked for, and right"
    monkeypatch.setattr(decoders, "verdict", lambda path: verdict(path, error=0.5))
    assert choose_decoding(cpu, None, full) is Decoding.PLAIN
    with pytest.raises(DeviceError, match=r"compiled passes, but they are not right here: error 5e-01"):
        choose_decoding(cpu, True, full)


def test_a_missing_compiler_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decoders._tell.cache_clear()
    monkeypatch.setattr(decoders, "verdict", lambda path: verdict(path, error=None))
    cpu = Placement(torch.device("cpu"), Precision.FLOAT32)
    for _ in range(2):
        assert choose_decoding(cpu, None, Quantization.NONE) is Decoding.PLAIN
    (record,) = caplog.records
    assert "plain passes, more slowly; compiled ones are not here: no compiler" in record.message
    decoders._tell.cache_clear()


def test_packed_weights_need_a_machine_that_unpacks_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "verdict", verdict)
    narrow, wide = (Placement(torch.device("cpu"), precision) for precision in reversed(Precision))
    assert (narrow.precision, wide.precision) == (Precision.BFLOAT16, Precision.FLOAT32)
    packed = Quantization.PACKED
    assert choose_decoding(narrow, None, packed) is choose_decoding(narrow, True, packed) is Decoding.NATIVE
    for placement, compiled, reason in (
        (wide, None, "this is cpu in float32"),
        (Placement(torch.device("cuda"), Precision.BFLOAT16), None, "this is cuda in bfloat16"),
        (narrow, False, "compiled answers are off"),
    ):
        with pytest.raises(DeviceError, match=f"for packed weights, but {reason}: leave"):
            choose_decoding(placement, compiled, packed)
    monkeypatch.setattr(decoders, "verdict", lambda path: verdict(path, fast_s=3.0))
    with pytest.raises(DeviceError, match=r"packed weights are slower here, not taken: 3e\+03 ms against"):
        choose_decoding(narrow, None, packed)


@pytest.mark.skipif(not found_out(FastPath.PACKED).right, reason="packed weights need a C compiler")
def test_packed_answers_are_those_of_full_weights_and_can_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("G2VLM_PATHS", "packed=on")
    folder, rng = random_checkpoint(tmp_path / "random"), np.random.default_rng(0)
    photo = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    answers = []
    for quantization in ("none", "packed"):
        model = g2vlm.load(folder, device="cpu", dtype="bfloat16", quantization=quantization)
        perception = model.perceive([photo])
        answers += [[perception.ask(question, max_new_tokens=8).token_ids[0] for question in QUESTIONS]]
    # With random weights later tokens are near-ties, which the order of additions decides.
    assert answers[0] == answers[1]
    assert any(isinstance(layer, NativeLinear) for layer in model.network.mixture.modules())
    model.save_pretrained(tmp_path / "saved")
    again = g2vlm.load(tmp_path / "saved", device="cpu", dtype="bfloat16")
    full = g2vlm.load(folder, device="cpu", dtype="bfloat16")
    for key, value in full.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[key], value), key


@pytest.fixture
def fresh_library() -> Iterator[None]:
    """What is found out about compilers in one test must not be known in others."""
    native._library.cache_clear()
    yield
    native._library.cache_clear()


def test_without_a_compiler_passes_are_plain(fresh_library: None, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Placement(torch.device("cpu"), Precision.FLOAT32)
    monkeypatch.setenv("CC", "no-such-compiler")
    assert choose_decoding(cpu, None, Quantization.INT8) is Decoding.PLAIN
    with pytest.raises(DeviceError, match=r"no-such-compiler .* was not found: install it"):
        choose_decoding(cpu, True, Quantization.NONE)
