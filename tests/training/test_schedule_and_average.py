import pytest
import torch
from torch import nn

from g2vlm.training.run.average import WeightAverage
from g2vlm.training.run.schedule import cosine_with_warmup


def factor(step):
    return cosine_with_warmup(step, warmup=10, total=110, floor=0.1)


def test_schedule_rises_peaks_and_falls():
    assert factor(0) == pytest.approx(0.1)
    assert factor(9) == factor(10) == 1.0
    assert factor(60) == pytest.approx(0.55)
    assert factor(110) == factor(5000) == pytest.approx(0.1)
    values = [factor(step) for step in range(10, 111)]
    assert values == sorted(values, reverse=True)


def test_average_follows_its_definition():
    weight = nn.Parameter(torch.zeros(3))
    average = WeightAverage({"w": weight}, decay=0.5)
    expected = torch.zeros(3)
    for step in range(20):
        with torch.no_grad():
            weight += 1.0
        average.update({"w": weight}, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.detach()
    torch.testing.assert_close(average.values["w"], expected)


def test_swapping_twice_changes_nothing():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    average = WeightAverage({"w": weight}, decay=0.9)
    with torch.no_grad():
        weight.fill_(7.0)
    average.swap({"w": weight})
    assert weight.tolist() == [1.0, 2.0]
    average.swap({"w": weight})
    assert weight.tolist() == [7.0, 7.0]
    assert average.values["w"].tolist() == [1.0, 2.0]
