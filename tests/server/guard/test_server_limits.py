"""Limits of the service."""

import ast
import inspect
import itertools
from dataclasses import fields

import pytest

from g2vlm.errors import InputError
from g2vlm.server.guard import limits
from g2vlm.server.guard.limits import Limits


def test_defaults_hold_together() -> None:
    assert Limits().image_pixels < 178_956_970  # what the package decodes at most


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
def test_no_limit_may_be_negative(name: str) -> None:
    with pytest.raises(InputError, match=name):
        Limits(**{name: -type(getattr(Limits(), name))(1)})


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_limit_that_lets_nothing_or_anything_through_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="request_seconds"):
        Limits(request_seconds=value)


def test_zero_redirects_and_no_cache_are_settings() -> None:
    assert Limits(url_redirects=0, cache_bytes=0).url_redirects == 0


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="disk_bytes"):
        Limits(disk_bytes=10, tenant_disk_bytes=11)
    with pytest.raises(InputError, match="request_bytes"):
        Limits(request_bytes=10, image_bytes=11)


def test_every_limit_has_a_text_for_the_help() -> None:
    """A docstring stands under each field."""
    body = next(
        node for node in ast.parse(inspect.getsource(limits)).body if isinstance(node, ast.ClassDef)
    ).body
    for node, following in itertools.pairwise(body):
        if isinstance(node, ast.AnnAssign):
            assert isinstance(following, ast.Expr), ast.unparse(node)
