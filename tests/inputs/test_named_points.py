"""Points that texts name, as people and benchmarks write them."""

import pytest

from g2vlm.inputs.pointing import Coordinates, named_places

NAMES = ["a.jpg", "b.jpg", "c.jpg"]
PIXELS, THOUSANDTHS, FRACTIONS = Coordinates.PIXELS, Coordinates.THOUSANDTHS, Coordinates.FRACTIONS


def found(text: str, **options) -> list[tuple]:
    return [(place.x, place.y, place.view) for place in named_places(text, NAMES, **options)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How far is (120, 80) from (400,210)?", [(120, 80, 0), (400, 210, 0)]),
        ("the red point [[553, 397]] and the blue point [[641, 838]]", [(553, 397, 0), (641, 838, 0)]),
        ("How deep is the point (u=12, v = 8.5)?", [(12, 8.5, 0)]),
        ("the lathe (boundingbox: [157, 675, 201, 721])", [(179, 698, 0)]),
        ("<|box_start|>(100,200),(300,400)<|box_end|>", [(200, 300, 0)]),
        ("In image 2, where is (5, 6)?", [(5, 6, 1)]),
        ("from (5, 6) in the second image to (7, 8) in image 3", [(5, 6, 1), (7, 8, 2)]),
        ("(5, 6) in Frame-3", [(5, 6, 2)]),
        ("How far is (5, 6) from (7, 8) in image 2?", [(5, 6, 1), (7, 8, 1)]),
        ("the 2nd view shows (5, 6) and (7, 8)", [(5, 6, 1), (7, 8, 1)]),
        ("(5, 6) of c.jpg", [(5, 6, 2)]),
        ("view 0: (5, 6); view 2: (7, 8)", [(5, 6, 0), (7, 8, 2)]),
        ("(5, 6). In image 2 there is a chair.", [(5, 6, 0)]),
        ("(5, 6) in image 9", [(5, 6, 0)]),
        ("How many chairs are there in image 2?", []),
        ("a point (1, 2, 3) in space; f(x); [4]; 3, 4", []),
    ],
)
def test_points_and_their_images(text, expected):
    assert found(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(120, 80)", PIXELS),
        ("[120, 80]", THOUSANDTHS),
        ("[120, 80] in pixels", PIXELS),
        ("[1202, 80]", PIXELS),
        ("(0.5, 0.25)", FRACTIONS),
        ("(120, 80), normalized to 0-1000", THOUSANDTHS),
        ("(120.5, 80)", PIXELS),
    ],
)
def test_what_numbers_count(text, expected):
    assert named_places(text, NAMES)[0].counted_in is expected
    assert named_places(text, NAMES, FRACTIONS)[0].counted_in is FRACTIONS


def test_thousandths_cover_the_photo_from_border_to_border():
    size = (640, 480)
    (middle,) = named_places("[500, 500]", NAMES)
    assert middle.pixel(size) == (319.5, 239.5)
    corners = named_places("[0, 0] [1000, 1000]", NAMES)
    assert [corner.pixel(size) for corner in corners] == [(-0.5, -0.5), (639.5, 479.5)]
    (half,) = named_places("(0.5, 0.25)", NAMES)
    assert half.pixel(size) == (319.5, 119.5)


def test_it_is_told_whether_an_image_was_named():
    named, other = named_places("(5, 6) in image 1", NAMES), named_places("(5, 6)", NAMES)
    assert (named[0].is_view_named, other[0].is_view_named) == (True, False)
