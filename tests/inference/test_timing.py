"""Named durations."""

import time

import pytest
import torch

from g2vlm.inference.timing import Stopwatch


def test_durations_add_up_by_name_even_when_a_step_fails() -> None:
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(2):
        with watch.measure("a"):
            time.sleep(0.01)
    with pytest.raises(KeyError), watch.measure("b"):
        raise KeyError
    assert watch.seconds.keys() == {"a", "b"}
    assert 0.02 <= watch.seconds["a"] < 5
    assert watch.seconds["b"] < watch.seconds["a"]


@pytest.mark.parametrize(("exact", "waits"), [(True, 2), (False, 0)])
def test_an_exact_watch_waits_for_the_gpu_at_both_ends(
    exact: bool, waits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", calls.append)
    with Stopwatch(torch.device("cuda:0"), exact=exact).measure("a"):
        pass
    assert len(calls) == waits
