"""A scene as one HTML file that shows itself in any browser, without a server or the network."""

from g2vlm.export.page.writer import static_page, write_page

__all__ = ["static_page", "write_page"]
