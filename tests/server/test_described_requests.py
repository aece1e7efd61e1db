"""Requests made from the service's own description, valid and not: a short form of `make check-server`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("schemathesis", reason="needs schemathesis")

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.config import SchemathesisConfig
from schemathesis.generation import GenerationMode

import g2vlm
from g2vlm.server.guard.limits import Limits
from g2vlm.server.running import make_service, serving_in_thread
from g2vlm.server.settings import Settings

CONFIG = Path(__file__).parents[2] / "scripts" / "schemathesis.toml"
EXAMPLES = 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning"),
]


@pytest.fixture(scope="module")
def address(model: g2vlm.Model) -> Iterator[str]:
    limits = Limits(answer_tokens=16, request_seconds=20.0)
    with serving_in_thread(make_service(model, Settings("small", grace_s=2, limits=limits))) as address:
        yield address


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_endpoint_does_what_it_says(address: str, mode: GenerationMode) -> None:
    config = SchemathesisConfig.from_path(CONFIG)
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json", config=config)
    num_operations = num_asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        num_operations += 1

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            response = case.call()
            assert response.status_code < 500, case.as_curl_command()
            case.validate_response(response)

        # An endpoint without parameters cannot be asked wrongly.
        with contextlib.suppress(Unsatisfiable):
            ask()
            num_asked += 1
    assert num_asked >= 12
    assert num_operations >= 20
