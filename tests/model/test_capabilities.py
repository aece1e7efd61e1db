"""Fast paths prove themselves: right and faster, asked once, kept, and as the user wishes."""

import dataclasses
from pathlib import Path

import pytest
import torch

from g2vlm.errors import DeviceError
from g2vlm.model import integer
from g2vlm.model.capabilities import deciding, trials
from g2vlm.model.capabilities.measuring import compare
from g2vlm.model.capabilities.paths import FastPath, Verdict, Wish, wish_for, wished_everywhere
from g2vlm.model.capabilities.trials import TRIALS, Pair, Trial, UnavailableError

PATH = FastPath.INT4


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is known, and nothing is left."""
    monkeypatch.setenv("G2VLM_CACHE", str(tmp_path))
    monkeypatch.delenv("G2VLM_PATHS", raising=False)
    monkeypatch.setattr(deciding, "_known", {})
    return tmp_path


def play(monkeypatch: pytest.MonkeyPatch, *, error: float, faster: bool) -> list[str]:
    """Put a trial of known outcome in place; the list grows with every numeric test."""
    asked: list[str] = []
    x = torch.ones(200, 200)

    def slow() -> None:
        for _ in range(30):
            x.mm(x)

    def quick() -> None:
        x.add(1)

    def test() -> float:
        asked.append("asked")
        return error

    pair = Pair(slow, quick) if faster else Pair(quick, slow)
    monkeypatch.setitem(trials.TRIALS, PATH, lambda: Trial(test, 1e-3, lambda small: pair))
    return asked


@pytest.mark.parametrize(
    ("error", "faster", "taken"),
    [(0.0, True, True), (0.0, False, False), (0.1, True, False), (float("nan"), True, False)],
)
def test_only_what_is_right_and_faster_is_taken(error, faster, taken, monkeypatch):
    play(monkeypatch, error=error, faster=faster)
    found = deciding.verdict(PATH)
    assert found.taken is taken
    assert found.right is (error == 0)
    assert (found.plain_s is None) is not found.right, "what is wrong is not timed"


def test_it_is_asked_once_and_kept_between_runs(folder, monkeypatch):
    asked = play(monkeypatch, error=0.0, faster=True)
    first = deciding.verdict(PATH)
    assert deciding.verdict(PATH) == first
    monkeypatch.setattr(deciding, "_known", {})
    monkeypatch.setattr(deciding, "BUSY_S", 1e9)
    assert deciding.verdict(PATH) == first
    assert asked == ["asked"]
    deciding.forget()
    deciding.verdict(PATH)
    assert len(asked) == 2


@pytest.mark.parametrize("change", ["threads", "environment", "damage", "busy"])
def test_it_is_asked_again_where_the_answer_may_be_another(change, folder, monkeypatch):
    asked = play(monkeypatch, error=0.0, faster=True)
    found = deciding.verdict(PATH)
    monkeypatch.setattr(deciding, "_known", {})
    threads = torch.get_num_threads()
    try:
        if change == "threads":
            torch.set_num_threads(threads + 1)
        elif change == "environment":
            monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SOME_OTHER")
        elif change == "damage":
            (kept,) = folder.rglob("*.json")
            kept.write_bytes(b"{}")
        else:
            monkeypatch.setattr(deciding, "BUSY_S", -1.0)
            deciding._keep(dataclasses.replace(found, settled=False))
        deciding.verdict(PATH)
    finally:
        torch.set_num_threads(threads)
    assert len(asked) == 2


def test_without_a_place_to_keep_it_a_verdict_counts_for_the_process(monkeypatch):
    asked = play(monkeypatch, error=0.0, faster=True)
    monkeypatch.setattr(deciding, "kept_folder", lambda: None)
    assert deciding.verdict(PATH) == deciding.verdict(PATH)
    assert asked == ["asked"]


def test_what_cannot_run_says_why_and_is_not_kept(folder, monkeypatch):
    def missing() -> Trial:
        raise UnavailableError("no compiler")

    monkeypatch.setitem(TRIALS, PATH, missing)
    found = deciding.verdict(PATH)
    assert not found.taken
    assert str(found) == "not here: no compiler"
    assert not list(folder.rglob("*.json"))


def test_the_user_has_the_last_word_but_not_about_what_is_wrong(monkeypatch):
    play(monkeypatch, error=0.0, faster=False)
    monkeypatch.setenv("G2VLM_PATHS", "int4=on")
    assert deciding.taken(PATH)
    monkeypatch.setenv("G2VLM_PATHS", "all=on, int4=off")
    assert not deciding.taken(PATH)
    assert wish_for(FastPath.PACKED) is Wish.ON
    wrong = Verdict(PATH, 0.5, 1e-3, 2.0, 1.0, settled=True, wish=Wish.ON)
    assert not wrong.taken


def test_a_wish_for_every_path_goes_before_the_environment(monkeypatch):
    play(monkeypatch, error=0.0, faster=True)
    monkeypatch.setenv("G2VLM_PATHS", "int4=on")
    with wished_everywhere(Wish.OFF):
        assert not deciding.taken(PATH)
    assert deciding.taken(PATH)


@pytest.mark.parametrize("text", ["int5=on", "int4", "int4=yes"])
def test_wishes_that_cannot_be_read_are_told(text, monkeypatch):
    monkeypatch.setenv("G2VLM_PATHS", text)
    with pytest.raises(DeviceError, match=r"Expected G2VLM_PATHS as words such as packed=off"):
        deciding.verdict(PATH)


@pytest.mark.parametrize("path", list(FastPath))
@torch.inference_mode()
def test_every_trial_gives_an_error_and_work_both_ways(path):
    state = torch.random.get_rng_state()
    try:
        trial = TRIALS[path]()
    except UnavailableError as error:
        pytest.skip(str(error))
    assert trial.error() >= 0
    pair = trial.pair(True)
    pair.plain()
    pair.fast()
    assert torch.equal(torch.random.get_rng_state(), state), "random numbers of the user"


class SaturatingPlane:
    """The instruction of AVX2: pairs of products of unsigned with signed bytes, added up in sixteen bits."""

    def __init__(self, codes, scale, num_rows):
        self.codes, self.scale = codes.long(), scale

    def product(self, codes, step=1.0):
        shifted = (codes.long() + 128)[:, None] * self.codes
        pairs = shifted.unflatten(-1, (-1, 2)).sum(-1).clamp(-(2**15), 2**15 - 1)
        return (pairs.sum(-1) - 128 * self.codes.sum(-1)).float() * self.scale * step


@pytest.mark.parametrize("path", [FastPath.INTEGER_HEADS, FastPath.INT8])
@torch.inference_mode()
def test_sums_that_overflow_are_found(path, monkeypatch):
    monkeypatch.setattr(integer, "PackedPlane", SaturatingPlane)
    monkeypatch.setattr(trials, "_require_onednn", lambda: None)
    trial = TRIALS[path]()
    assert trial.error() > 10 * trial.tolerance


def test_a_kept_verdict_does_not_outlive_what_it_relied_on(monkeypatch):
    play(monkeypatch, error=0.0, faster=True)
    assert deciding.taken(PATH)
    monkeypatch.setattr(deciding, "_known", {})

    def missing() -> Trial:
        raise UnavailableError("the compiler is gone")

    monkeypatch.setitem(TRIALS, PATH, missing)
    assert str(deciding.verdict(PATH)) == "not here: the compiler is gone"


def test_both_ways_are_timed():
    x = torch.ones(300, 300)
    timing = compare(lambda: x.mm(x).mm(x).mm(x), lambda: x.add(1))
    assert 0 < timing.fast_s < timing.plain_s
    assert not timing.hopeless
