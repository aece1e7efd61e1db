"""Rotary embeddings against the formulas written out, pair by pair."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from g2vlm.model.rotary import (
    grid_indices,
    merged_grid_indices,
    multimodal_rotation,
    planar_rotation,
    rotate_halves,
    rotate_quarters,
)


@pytest.mark.parametrize("sections", [(16, 24, 24), (2, 3, 3), (1, 1, 2)])
def test_each_frequency_follows_the_axis_of_its_section(sections: tuple[int, int, int]) -> None:
    half, theta = sum(sections), 1e6
    positions = torch.tensor([[3, 0], [5, 7], [11, 2]])
    rotation = multimodal_rotation(positions, sections, theta)
    assert rotation.cos.shape == (1, 1, 2, half)
    axis_of = [0] * sections[0] + [1] * sections[1] + [2] * sections[2]
    for token in range(2):
        for i in range(half):
            angle = int(positions[axis_of[i], token]) * theta ** (-i / half)
            assert rotation.cos[0, 0, token, i] == pytest.approx(math.cos(angle), abs=2e-6)
            assert rotation.sin[0, 0, token, i] == pytest.approx(math.sin(angle), abs=2e-6)


def test_batched_positions_give_each_sequence_its_own_angles() -> None:
    positions = torch.randint(0, 50, (2, 3, 4), generator=torch.Generator().manual_seed(0))
    both = multimodal_rotation(positions, (1, 2, 1), 100.0)
    for i in range(2):
        assert torch.equal(both.cos[i], multimodal_rotation(positions[i], (1, 2, 1), 100.0).cos[0])


def test_halves_are_rotated_as_complex_numbers() -> None:
    x = torch.randn(1, 2, 3, 8, generator=torch.Generator().manual_seed(0))
    rotation = multimodal_rotation(torch.tensor([[1, 2, 3]] * 3), (1, 1, 2), 10.0)
    found = rotate_halves(x, rotation)
    turned = torch.complex(x[..., :4], x[..., 4:]) * torch.complex(rotation.cos, rotation.sin)
    torch.testing.assert_close(found, torch.cat([turned.real, turned.imag], -1), atol=1e-6, rtol=0)


def test_quarters_are_rows_then_columns() -> None:
    """The first half of the channels turns with the row alone, the second with the column alone."""
    x = torch.randn(1, 1, 6, 8, generator=torch.Generator().manual_seed(0))
    row, column = grid_indices(2, 3, torch.device("cpu"))
    found = rotate_quarters(x, planar_rotation(row, column, 2, 100.0))
    frequency = torch.tensor([1.0, 100**-0.5])
    for part, index in ((slice(0, 4), row), (slice(4, 8), column)):
        values = x[0, 0, :, part]
        turned = torch.complex(values[:, :2], values[:, 2:]) * torch.exp(1j * index[:, None] * frequency)
        torch.testing.assert_close(
            found[0, 0, :, part], torch.cat([turned.real, turned.imag], -1), atol=1e-6, rtol=0
        )


@settings(deadline=None, max_examples=20)
@given(shift=st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)), seed=st.integers(0, 99))
def test_scores_depend_on_relative_positions_only(shift: tuple[int, int, int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(1, 1, 5, 16, generator=generator) for _ in range(2))
    positions = torch.randint(0, 30, (3, 5), generator=generator)

    def scores(at: torch.Tensor) -> torch.Tensor:
        rotation = multimodal_rotation(at, (2, 3, 3), 1e4)
        return rotate_halves(q, rotation) @ rotate_halves(k, rotation).mT

    moved = positions + torch.tensor(shift)[:, None]
    torch.testing.assert_close(scores(positions), scores(moved), atol=1e-3, rtol=0)


def test_rotation_keeps_lengths_and_starts_at_the_identity() -> None:
    x = torch.randn(1, 2, 4, 16, generator=torch.Generator().manual_seed(0))
    row, column = grid_indices(2, 2, torch.device("cpu"))
    for rotate in (rotate_halves, rotate_quarters):
        turned = rotate(x, planar_rotation(row, column, 4, 100.0))
        torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
        assert torch.equal(turned[:, :, 0], x[:, :, 0])


def test_low_precision_input_is_rotated_in_float32() -> None:
    x = torch.randn(1, 1, 4, 16).bfloat16()
    row, column = grid_indices(2, 2, torch.device("cpu"))
    rotation = planar_rotation(row, column, 4, 100.0)
    assert rotate_halves(x, rotation).dtype is torch.float32
    assert torch.equal(rotate_halves(x, rotation), rotate_halves(x.float(), rotation))


@pytest.mark.parametrize(("rows", "columns", "merge"), [(2, 2, 2), (4, 6, 2), (6, 2, 2), (3, 3, 3)])
def test_merge_order_visits_each_square_before_the_next(rows: int, columns: int, merge: int) -> None:
    expected = [
        (r * merge + i, c * merge + j)
        for r in range(rows // merge)
        for c in range(columns // merge)
        for i in range(merge)
        for j in range(merge)
    ]
    row, column = merged_grid_indices(rows, columns, merge, torch.device("cpu"))
    assert list(zip(row.tolist(), column.tolist(), strict=True)) == expected


def test_a_slice_of_a_rotation_is_the_rotation_of_a_slice() -> None:
    positions = torch.arange(18).view(3, 6)
    whole = multimodal_rotation(positions, (1, 1, 2), 10.0)
    assert torch.equal(whole[2:4].cos, multimodal_rotation(positions[:, 2:4], (1, 1, 2), 10.0).cos)
