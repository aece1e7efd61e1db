"""Prompts as spans: positions and blocks against the rules of the specification, token by token."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from g2vlm.inputs.spans import AttentionRule, Expert, ImageTokens, SpanBuilder

FRAME = ImageTokens(start=901, end=902)
Token = tuple[Expert, int, tuple[int, int, int], int | None]
"""Expert, block, position and text id of one token."""


def tokens_of(builder: SpanBuilder) -> list[Token]:
    return [
        (
            span.expert,
            span.block,
            tuple(span.positions[:, i].tolist()),
            None if span.token_ids is None else span.token_ids[i],
        )
        for span in builder.spans
        for i in range(span.num_tokens)
    ]


def literal_image(expert: Expert, block: int, p: int, rows: int, columns: int) -> tuple[list[Token], int]:
    semantic = Expert.SEMANTIC
    tokens: list[Token] = [(semantic, block, (p, p, p), FRAME.start)]
    p += 1
    tokens += [(expert, block, (p, p + row, p + col), None) for row in range(rows) for col in range(columns)]
    p += max(rows, columns)
    tokens.append((semantic, block, (p, p, p), FRAME.end))
    return tokens, p + 1


item = st.one_of(
    st.tuples(st.just("text"), st.lists(st.integers(0, 900), max_size=4)),
    st.tuples(st.sampled_from(["global", "causal", "semantic"]), st.tuples(*[st.integers(1, 4)] * 3)),
)


@settings(deadline=None)
@given(start=st.integers(0, 100), items=st.lists(item, max_size=5))
def test_spans_equal_the_rules_written_out(start: int, items: list) -> None:
    builder = SpanBuilder(FRAME, start)
    expected: list[Token] = []
    p, block = start, -1
    for kind, what in items:
        if kind == "text":
            builder.text(what)
            block += bool(what)
            for token in what:
                expected.append((Expert.SEMANTIC, block, (p, p, p), token))
                p += 1
            continue
        views, rows, columns = what
        if kind == "semantic":
            builder.semantic_views(views, rows, columns)
        else:
            builder.geometric_views(views, rows, columns, one_block=kind == "global")
        expert = Expert.SEMANTIC if kind == "semantic" else Expert.GEOMETRIC
        for view in range(views):
            block += kind != "global" or view == 0
            tokens, p = literal_image(expert, block, p, rows, columns)
            expected += tokens
    assert tokens_of(builder) == expected
    assert builder.position == p


def test_text_is_causal_and_images_are_bidirectional() -> None:
    builder = SpanBuilder(FRAME).text([1]).geometric_views(1, 1, 2, one_block=True).semantic_views(1, 1, 1)
    rules = [span.rule for span in builder.spans]
    assert rules == [AttentionRule.CAUSAL] + [AttentionRule.BIDIRECTIONAL] * 6


def test_the_running_position_advances_by_the_larger_side() -> None:
    assert SpanBuilder(FRAME).geometric_views(2, 3, 7, one_block=True).position == 2 * (7 + 2)
    assert SpanBuilder(FRAME).semantic_views(1, 5, 2).position == 5 + 2


def test_an_empty_text_opens_no_block() -> None:
    builder = SpanBuilder(FRAME, 4).text([])
    assert builder.spans == []
    assert builder.text([5]).spans[0].block == 0


def test_a_prompt_continues_where_another_ended() -> None:
    first = SpanBuilder(FRAME).text([1, 2, 3])
    second = SpanBuilder(FRAME, first.position).text([4])
    assert torch.equal(second.spans[0].positions, torch.full((3, 1), 3))
