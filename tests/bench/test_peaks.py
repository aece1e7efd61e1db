"""Peaks of memory are seen, also when the memory is free again at the end."""

import pytest
import torch

from g2vlm.bench.memory import anonymous_bytes, measure_peak

SIZE = 64 * 2**20
CPU = torch.device("cpu")


def touch() -> None:
    """Hold a block for a moment and free it."""
    block = torch.ones(SIZE // 4)
    for _ in range(5):
        block.add_(1)


@pytest.mark.parametrize("files_too", [False, True])
def test_a_freed_block_counts(files_too: bool) -> None:
    touch()
    peak = measure_peak(touch, CPU, files_too=files_too)
    assert 0.9 * SIZE < peak.growth < 1.5 * SIZE


@pytest.mark.parametrize("files_too", [False, True])
def test_the_past_does_not_count(files_too: bool) -> None:
    touch()
    assert measure_peak(lambda: None, CPU, files_too=files_too).growth < SIZE // 4


def test_errors_of_the_action_come_through() -> None:
    with pytest.raises(ZeroDivisionError):
        measure_peak(lambda: 1 / 0, CPU)


def test_anonymous_memory_is_positive() -> None:
    assert anonymous_bytes() > 2**20
