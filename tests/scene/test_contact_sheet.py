"""Scenes at a glance."""

import base64
import html
import io
import re
from dataclasses import replace

import numpy as np
from PIL import Image

from g2vlm.scene.contact_sheet import contact_sheet
from g2vlm.scene.formats import FORMATS
from g2vlm.scene.scene import Scene


def test_each_view_has_a_column_of_photo_depth_and_confidence(scene, make_view):
    grey = make_view(0, rgb=np.full((6, 8, 3), 90, np.uint8))
    sure = replace(grey, confidence=np.ones((6, 8), np.float32))
    unsure = replace(grey, confidence=np.zeros((6, 8), np.float32))
    sheet = contact_sheet(Scene((sure, unsure), scene.scale))
    assert sheet.size == (2 * 160 + 4, 3 * 120 + 2 * 4)
    assert sheet.getpixel((80, 60)) == (90, 90, 90)
    assert sheet.getpixel((80, 300)) == (253, 231, 37)  # the last colour of viridis
    red, _, blue = sheet.getpixel((244, 300))
    assert red < 80 < blue
    near, far = sheet.getpixel((5, 130)), sheet.getpixel((155, 240))  # the wall recedes to the right
    assert near[0] > near[2]
    assert far[0] < near[0]


def test_long_scenes_show_eight_views(scene, make_view):
    assert contact_sheet(Scene((make_view(0),) * 30, scene.scale)).width == 8 * 164 - 4


def test_notebooks_get_the_picture_and_the_unit(scene):
    text = scene._repr_html_()
    data = re.search(r"<img alt=[^>]+base64,([^\"]+)\"", text)[1]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == contact_sheet(scene).size
    assert "3 views" in text
    assert text.count("<iframe") == int("html" in FORMATS)
    assert "the network&#x27;s own unit" in text


def test_a_scene_without_points_is_shown_too(scene, make_view):
    contact_sheet(Scene((make_view(0, valid=np.zeros((6, 8), bool)),), scene.scale))


def test_notebooks_get_the_scene_to_turn_once_the_page_is_known(scene):
    import g2vlm.export  # noqa: F401  (registers it)

    text = scene._repr_html_()
    frame = re.search(r'<iframe[^>]* srcdoc="([^"]*)"', text)[1]
    assert html.unescape(frame).startswith("<!doctype html>")
