"""Weights are filled completely, in any number of pieces, by any number of threads."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from g2vlm.checkpoints import filling
from g2vlm.checkpoints.filling import Piece, copy_all, pieces_of
from g2vlm.checkpoints.loading import load_network
from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.model.precision import choose_placement


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_pieces_fill_stacked_tensors(
    dtype: torch.dtype, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "PIECE_NUMBERS", 7)
    sources = [torch.randn(5, 3), torch.randn(1, 3), torch.randn(4, 3)]
    target = torch.full((10, 3), torch.nan, dtype=dtype)
    pieces = pieces_of(sources, target)
    assert len(pieces) == 3 + 1 + 2
    copy_all([pieces])
    assert torch.equal(target, torch.cat(sources).to(dtype))


def test_tensors_of_other_shapes_and_without_numbers() -> None:
    target = torch.empty(4, 27)
    source = torch.randn(4, 3, 3, 3)
    copy_all([pieces_of([source], target), pieces_of([torch.empty(0, 2)], torch.empty(0, 2))])
    assert torch.equal(target, source.flatten(1))


def test_several_threads_copy_and_the_caller_hears_of_each_weight_in_turn(two_threads: None) -> None:
    meeting, heard, used = threading.Barrier(2, timeout=20), [], set()

    class Meeting(Piece):
        def copy(self) -> None:
            meeting.wait()  # breaks if only one thread copies
            used.add(threading.get_ident())

    copy_all([[Meeting(torch.empty(0), torch.empty(0))] for _ in range(6)], heard.append)
    assert heard == [1, 2, 3, 4, 5, 6]
    assert len(used) == 2
    assert threading.get_ident() not in used


def test_an_error_ends_the_copying() -> None:
    copied = []

    class Failing(Piece):
        def copy(self) -> None:
            copied.append(self)
            if len(copied) == 2:
                raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        copy_all([[Failing(torch.empty(0), torch.empty(0))] for _ in range(2000)])
    assert len(copied) < 2000


def test_networks_loaded_in_pieces_are_equal(
    tmp_path: Path, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = random_checkpoint(tmp_path)
    placement = choose_placement("cpu", "bfloat16")
    whole = dict(load_network(folder, placement).named_parameters())
    monkeypatch.setattr(filling, "PIECE_NUMBERS", 1000)
    pieces = dict(load_network(folder, placement).named_parameters())
    assert sum(p.numel() for p in pieces.values()) == sum(
        t.numel() for t in load_file(folder / "model.safetensors").values()
    )
    assert all(torch.equal(pieces[name], whole[name]) for name in whole)
