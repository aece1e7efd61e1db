"""Rates are composed as promised. No test depends on how fast the machine is."""

import math
from collections import Counter

import pytest
import torch

from g2vlm.bench.limits import (
    MAX_QUERIES,
    MAX_ROWS,
    bandwidth,
    compose,
    int8_available,
    kind_of,
    name_of,
    probe,
    probes,
    stream_probes,
)
from g2vlm.bench.timing import median, stopwatch, take_turns
from g2vlm.bench.work import Attention, Format, Product, through_int8
from g2vlm.model.precision import choose_placement

PLACEMENT = choose_placement("cpu", "bfloat16")
PRODUCT, HEAD = Product(4, 8, 16), Product(4, 8, 16, Format.FLOAT32)
ATTENTION = Attention(1, 4, 2, 6, 6, 8)


def test_limit_is_the_sum_over_all_steps() -> None:
    work = Counter({PRODUCT: 3, HEAD: 1, ATTENTION: 2})
    samples = {
        name_of(PRODUCT): (1.0, 2.0, 9.0),
        name_of(HEAD): (5.0,),
        name_of(ATTENTION): (0.5, 0.5),
    }
    limit = compose(work, samples)
    assert limit.seconds == pytest.approx(3 * 2.0 + 5.0 + 2 * 0.5)
    assert limit.rates["matrix"] == pytest.approx(PRODUCT.flops / 2.0)
    assert limit.rates["matrix_float32"] == pytest.approx(HEAD.flops / 5.0)
    assert limit.rates["attention"] == pytest.approx(ATTENTION.flops / 0.5)
    assert set(limit.rates) == {"matrix", "matrix_float32", "attention"}


def test_best_rate_is_that_of_the_fastest_shape() -> None:
    slow, fast = Product(4, 8, 16), Product(4, 8, 32)
    limit = compose(Counter({slow: 1, fast: 1}), {name_of(slow): (1.0,), name_of(fast): (1.0,)})
    assert limit.best["matrix"] == fast.flops
    assert limit.rates["matrix"] == (slow.flops + fast.flops) / 2
    assert limit.ideal_share == {"matrix": pytest.approx(0.75)}


@pytest.mark.parametrize(
    "step",
    [
        PRODUCT,
        HEAD,
        ATTENTION,
        Attention(3, 2, 2, 5, 5, 8, Format.FLOAT32),
        Product(MAX_ROWS + 100, 2, 2),
        Attention(1, 2, 1, MAX_QUERIES + 10, 4, 2),
        Attention(MAX_QUERIES, 1, 1, 3, 3, 2),
    ],
)
def test_probes_run(step: Product | Attention) -> None:
    seconds = probe(step, PLACEMENT)()
    assert math.isfinite(seconds)
    assert seconds > 0


@pytest.mark.skipif(
    not int8_available(PLACEMENT), reason="integer products are not here, not right or not faster"
)
def test_integer_products_are_a_way_to_float32() -> None:
    work = through_int8(Counter({PRODUCT: 2, HEAD: 5, ATTENTION: 1}))
    integer = Product(4, 8, 16, Format.INT8)
    assert work == Counter({PRODUCT: 2, integer: 15, ATTENTION: 1})
    assert kind_of(integer) == "matrix_int8"
    assert probe(integer, PLACEMENT)() > 0


def test_every_step_has_a_probe_of_its_own() -> None:
    assert len(probes(Counter({PRODUCT: 2, HEAD: 1, ATTENTION: 7}), PLACEMENT)) == 3


def test_bandwidth_is_the_fastest_way_to_read() -> None:
    assert bandwidth({"a": (2.0, 1.0, 4.0), "b": (0.5,)}, 100) == 200
    for call in stream_probes(1 << 16, PLACEMENT).values():
        assert call() > 0


def test_turns_alternate_after_a_warm_up() -> None:
    order: list[str] = []

    def call(name: str) -> float:
        order.append(name)
        return float(len(order))

    samples = take_turns({"a": lambda: call("a"), "b": lambda: call("b")}, repeats=2, budget_s=60.0)
    assert order == ["a", "b"] * 3
    assert samples == {"a": (3.0, 5.0), "b": (4.0, 6.0)}


def test_a_spent_budget_leaves_one_round() -> None:
    samples = take_turns({"a": lambda: 7.0}, repeats=5, budget_s=0.0)
    assert samples == {"a": (7.0,)}


def test_stopwatch_counts_the_action() -> None:
    ran: list[int] = []
    assert stopwatch(lambda: ran.append(1), torch.device("cpu"))() >= 0
    assert ran == [1]
    assert median((3.0, 1.0, 2.0)) == 2.0
