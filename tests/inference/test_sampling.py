"""Choosing the next token."""

import pytest
import torch

from g2vlm.errors import InputError
from g2vlm.inference.sampling import Sampling, TokenChooser

CPU = torch.device("cpu")
PROBABILITY = torch.tensor([0.5, 0.3, 0.15, 0.05])


def frequencies(sampling: Sampling, draws: int = 4000) -> torch.Tensor:
    choose = TokenChooser(sampling, CPU)
    chosen = choose(PROBABILITY.log().expand(draws, -1))
    return torch.bincount(chosen, minlength=4) / draws


def test_greedy_takes_the_likeliest_of_each_row() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, -1.0, 2.9]])
    assert TokenChooser(Sampling(), CPU)(logits).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(temperature=1.0), PROBABILITY),
        (Sampling(temperature=0.5), PROBABILITY**2 / (PROBABILITY**2).sum()),
        (Sampling(temperature=1.0, top_k=2), torch.tensor([0.625, 0.375, 0, 0])),
        # 0.5 alone does not reach 0.6, so the second token stays; the third does not.
        (Sampling(temperature=1.0, top_p=0.6), torch.tensor([0.625, 0.375, 0, 0])),
        (Sampling(temperature=1.0, top_p=1e-6), torch.tensor([1.0, 0, 0, 0])),
        (Sampling(temperature=1.0, top_k=1), torch.tensor([1.0, 0, 0, 0])),
        (Sampling(temperature=1.0, top_k=99), PROBABILITY),
    ],
)
def test_tokens_come_as_often_as_their_restricted_probability_says(
    sampling: Sampling, expected: torch.Tensor
) -> None:
    found = frequencies(sampling)
    assert bool((found[expected == 0] == 0).all())
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)


def test_the_order_of_tokens_does_not_matter_to_top_p() -> None:
    choose = TokenChooser(Sampling(temperature=1.0, top_p=0.6), CPU)
    order = torch.tensor([2, 0, 3, 1])
    chosen = choose(PROBABILITY[order].log().expand(2000, -1))
    assert set(order[chosen].tolist()) == {0, 1}


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_values_out_of_range_are_errors(name: str) -> None:
    for value in {"temperature": [-0.1, float("nan")], "top_p": [0.0, -1.0, 1.1], "top_k": [-1]}[name]:
        with pytest.raises(InputError, match=name):
            Sampling(**{name: value})


@pytest.mark.parametrize("temperature", [1e-4, 1e-12, 1.7e-53, 5e-324])
def test_a_tiny_temperature_takes_the_likeliest_token(temperature: float) -> None:
    logits = torch.tensor([[1.0, 90.0, -3.0, 89.0], [-200.0, -150.0, -151.0, -400.0]])
    chooser = TokenChooser(Sampling(temperature=temperature, top_p=0.9), torch.device("cpu"))
    assert chooser(logits).tolist() == [1, 1]
