"""Rows behind beginnings that they share, against each row read whole by itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from g2vlm.model import attention_parts
from g2vlm.model.attention import attend
from g2vlm.model.cache import CacheShape, Segment
from g2vlm.model.row_cache import GROWTH_TOKENS, Prefill, RowCache, StepMemory, readers_of

SHAPE = CacheShape(num_layers=2, num_kv_heads=2, head_dim=8)
HEADS = 6
CPU = torch.device("cpu")


def normal(*size: int, seed: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def segment(length: int, seed: int) -> Segment:
    return Segment(*normal(2, 2, 2, length, 8, seed=seed))


PHOTOS, OTHERS, TURN = segment(20, 1), segment(9, 2), segment(5, 3)
BEGINNINGS = [(PHOTOS,), (PHOTOS, TURN), (OTHERS,), ()]


class Row:
    """One text by itself: everything that stands before a token, in one piece."""

    def __init__(self, beginning: tuple[Segment, ...]) -> None:
        self.beginning = beginning
        self.own: list[tuple[Tensor, Tensor]] = []  # (layers, kv_heads, tokens, channels)

    def whole(self, layer: int) -> tuple[Tensor, Tensor]:
        pairs = [(one.keys, one.values) for one in self.beginning] + self.own
        keys, values = (
            torch.cat([kind[layer] for kind in kinds], dim=1)[None] for kinds in zip(*pairs, strict=True)
        )
        return keys, values


def read(rows: list[Row], lengths: list[int], seed: int) -> tuple[Prefill, Tensor]:
    """A pass over the questions of some rows; its outputs, layer by layer, are checked."""
    prefill = Prefill([row.beginning for row in rows], lengths, CPU)
    longest = max(lengths)
    prefill.reserve(longest)
    new = normal(2, SHAPE.num_layers, len(rows), 2, longest, 8, seed=seed)
    queries = normal(len(rows), HEADS, longest, 8, seed=seed + 1)
    for layer in range(SHAPE.num_layers):
        prefill.store(layer, [(new[0, layer], new[1, layer])])
        found = prefill.attend(layer, queries, longest, causal=True)
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            if layer == 0:
                row.own.append((new[0, :, place, :, :length], new[1, :, place, :, :length]))
            expected = attend(queries[place : place + 1, :, :length], *row.whole(layer), causal=True)
            torch.testing.assert_close(found[place : place + 1, :, :length], expected, rtol=0, atol=2e-6)
    return prefill, queries


def step(cache: RowCache, rows: list[Row], seed: int, *, compiled: bool = False) -> None:
    """A pass over one more token of each row, checked against each row by itself."""
    cache.reserve()
    new = normal(2, SHAPE.num_layers, len(rows), 2, 1, 8, seed=seed)
    queries = normal(len(rows), HEADS, 1, 8, seed=seed + 1)
    for place, row in enumerate(rows):
        row.own.append((new[0, :, place], new[1, :, place]))
    memory: RowCache | StepMemory = cache
    if compiled:
        keys, values = ([one[: len(rows)] for one in kind] for kind in cache.buffers)
        beginning = [(one.segment.keys, one.segment.values) for one in cache.readers]
        memory = StepMemory(keys, values, torch.tensor(cache.lengths), beginning)
    for layer in range(SHAPE.num_layers):
        memory.store(layer, [(new[0, layer], new[1, layer])])
        found = memory.attend(layer, queries, 1, causal=False)
        for place, row in enumerate(rows):
            expected = attend(queries[place : place + 1], *row.whole(layer))
            torch.testing.assert_close(found[place : place + 1], expected, rtol=0, atol=2e-6)
    cache.advance()


def new_cache(**options: bool) -> RowCache:
    return RowCache(SHAPE, torch.float32, CPU, **options)


@torch.no_grad()
def test_rows_of_any_length_read_what_each_would_read_alone() -> None:
    rows = [Row(beginning) for beginning in BEGINNINGS]
    cache = new_cache()
    cache.join(read(rows, [3, 1, 7, 2], 10)[0])
    for seed in range(4):
        step(cache, rows, 100 + 10 * seed)
    assert cache.lengths == [7, 5, 11, 6]


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[4], [4, 4, 4], [2, 5, 3]])
def test_compiled_passes_read_the_same(lengths: list[int]) -> None:
    rows = [Row((PHOTOS, TURN)) for _ in lengths]
    cache = new_cache()
    cache.join(read(rows, lengths, 10)[0])
    for seed in range(3):
        step(cache, rows, 100 + 10 * seed, compiled=True)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_rows_come_and_go(data: st.DataObject) -> None:
    cache, rows = new_cache(), list[Row]()
    with torch.no_grad():
        for seed in range(data.draw(st.integers(1, 7))):
            what = data.draw(st.sampled_from(["join", "leave", "step"]))
            if what == "join" or not rows:
                joining = [
                    Row(BEGINNINGS[i]) for i in data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
                ]
                lengths = [data.draw(st.integers(1, 5)) for _ in joining]
                cache.join(read(joining, lengths, 1000 + 10 * seed)[0])
                rows += joining
            elif what == "leave":
                place = data.draw(st.integers(0, len(rows) - 1))
                cache.leave(place)
                rows[place] = rows[-1]
                rows.pop()
            else:
                step(cache, rows, 2000 + 10 * seed)
            assert cache.num_rows == len(rows)
            assert cache.lengths == [sum(keys.shape[2] for keys, _ in row.own) for row in rows]
            if rows:
                step(cache, rows, 3000 + 10 * seed)


@torch.no_grad()
def test_a_long_answer_takes_the_room_of_its_tokens() -> None:
    """It once doubled the memory of the photos."""
    cache = new_cache()
    cache.join(read([Row((PHOTOS,))], [3], 10)[0])
    sizes = set()
    for _ in range(5 * GROWTH_TOKENS):
        cache.reserve()
        cache.advance()
        room = cache.capacity[1] - cache.lengths[0]
        assert 0 <= room < GROWTH_TOKENS
        assert cache.num_bytes == SHAPE.num_bytes(cache.capacity[1], torch.float32)
        sizes.add(cache.num_bytes)
    assert len(sizes) == 6


@torch.no_grad()
def test_growing_holds_one_layer_twice_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = new_cache()
    cache.join(read([Row(())], [GROWTH_TOKENS - 1], 10)[0])
    kept = [buffer.clone() for kind in cache.buffers for buffer in kind]
    held: list[int] = []
    room = RowCache._room

    def counted(self: RowCache, rows: int, tokens: int) -> Tensor:
        held.append(sum(buffer.shape[2] for kind in self.buffers for buffer in kind) + tokens)
        return room(self, rows, tokens)

    monkeypatch.setattr(RowCache, "_room", counted)
    cache.advance()
    cache.reserve()
    whole = 2 * SHAPE.num_layers * 2 * GROWTH_TOKENS
    assert max(held) <= whole + GROWTH_TOKENS
    for buffer, before in zip((b for kind in cache.buffers for b in kind), kept, strict=True):
        assert torch.equal(buffer[:, :, : GROWTH_TOKENS - 1], before[:, :, : GROWTH_TOKENS - 1])


@torch.no_grad()
def test_room_of_rows_that_left_is_given_back_unless_it_must_stay() -> None:
    for lasting in (False, True):
        cache = new_cache(lasting=lasting)
        cache.join(read([Row(()) for _ in range(3)], [2, 2, 2], 10)[0])
        assert cache.capacity == (4, GROWTH_TOKENS)
        place = cache.buffers[0][0].data_ptr()
        for _ in range(3):
            cache.leave(0)
        assert cache.num_rows == 0
        assert (cache.num_bytes > 0) is lasting
        cache.join(read([Row(())], [2], 10)[0])
        assert (cache.buffers[0][0].data_ptr() == place) or not lasting


def test_a_segment_is_read_once_for_all_its_rows() -> None:
    found = {reader.segment: reader for reader in readers_of([*BEGINNINGS, (PHOTOS,)], CPU)}
    assert found[PHOTOS].rows == (0, 1, 4)
    assert found[TURN].rows == (1,)
    assert found[OTHERS].rows == (2,)
    assert all(reader.index is not None for reader in found.values())
    (alone,) = readers_of([(PHOTOS,)] * 2, CPU)
    assert alone.index is None


@torch.no_grad()
def test_a_single_question_needs_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest kernel of a GPU takes none."""
    masked: list[bool] = []
    choose = attention_parts.kernel_for

    def recorded(queries: Tensor, **given: bool) -> attention_parts.Kernel:
        masked.append(given["masked"])
        return choose(queries, **given)

    monkeypatch.setattr(attention_parts, "kernel_for", recorded)
    for count in (1, 3):
        rows, cache = [Row((PHOTOS, TURN)) for _ in range(count)], new_cache()
        cache.join(read(rows, [4] * count, 10)[0])
        step(cache, rows, 20)
    assert masked
    assert not any(masked)
    rows.append(Row(()))
    cache.join(read(rows[-1:], [1], 30)[0])
    step(cache, rows, 40)
    assert any(masked), "rows of different lengths need one"


def test_a_copy_of_a_row_is_what_it_has_read() -> None:
    rows, cache = [Row((PHOTOS,)), Row(())], new_cache()
    with torch.no_grad():
        cache.join(read(rows, [3, 2], 10)[0])
        step(cache, rows, 20)
    copy = cache.segment(1, 3)
    keys, values = (torch.cat(kinds, dim=2) for kinds in zip(*rows[1].own, strict=True))
    assert torch.equal(copy.keys, keys)
    assert torch.equal(copy.values, values)


def test_only_one_pass_reads_questions() -> None:
    prefill = Prefill([()], [4], CPU)
    with pytest.raises(ValueError, match="one pass over 4 tokens, got 3"):
        prefill.reserve(3)
