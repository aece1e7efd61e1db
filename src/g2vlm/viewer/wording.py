"""Texts that several panels show."""

from g2vlm.scene.scene import Scene

WELCOME = "Photos or a video become a scene in 3-D that you can ask about."


def describe(scene: Scene) -> str:
    """One line about a scene, in Markdown."""
    count = scene.num_points
    points = f"{count / 1e6:.1f} million" if count >= 1e6 else f"{count:,}"
    views = "1 view" if len(scene) == 1 else f"{len(scene)} views"
    unit = "metres" if scene.scale.unit == "m" else "no metric scale"
    return f"**{views}, {points} points**, {unit} ({plain(scene.scale.source)})"


def plain(text: str) -> str:
    """A text that Markdown shows as it is: names of files and answers may hold anything."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#+-.!|<>~&$" else letter for letter in text)
