"""Pauses between the pieces of a pass."""

import threading

import pytest

from g2vlm.model.pausing import pause, pausing


def test_a_pause_calls_what_its_own_thread_set_and_nothing_outside() -> None:
    calls: list[str] = []
    with pausing(lambda: calls.append("outer")):
        pause()
        with pausing(lambda: calls.append("inner")):
            pause()
        pause()
        thread = threading.Thread(target=pause)
        thread.start()
        thread.join()
    pause()
    assert calls == ["outer", "inner", "outer"]


def test_passes_that_run_in_a_pause_do_not_pause() -> None:
    depth: list[int] = []

    def nested() -> None:
        depth.append(1)
        pause()

    with pausing(nested):
        pause()
        pause()
    assert len(depth) == 2


def test_an_error_in_a_pause_ends_the_pass_and_pauses_work_again() -> None:
    def stop() -> None:
        raise InterruptedError

    with pausing(stop):
        for _ in range(2):
            with pytest.raises(InterruptedError):
                pause()
