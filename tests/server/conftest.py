"""A small service for all tests of the HTTP service."""

from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi", reason="needs the extra server")

from fastapi.testclient import TestClient
from small_service import small_model, small_service

import g2vlm
from g2vlm.server.app import create_app
from g2vlm.server.service import Service


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> g2vlm.Model:
    return small_model(tmp_path_factory.mktemp("random"))


@pytest.fixture
def service(model: g2vlm.Model) -> Service:
    return small_service(model)


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service)) as client:
        yield client
