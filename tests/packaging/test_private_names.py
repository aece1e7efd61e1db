"""Names with an underscore in front belong to their module: no other one imports them."""

import ast
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src" / "g2vlm"


def private_imports(source: str) -> list[str]:
    """Names that a module of the package takes from another although they are private."""
    return [
        f"{statement.module}.{alias.name}"
        for statement in ast.walk(ast.parse(source))
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("g2vlm")
        for alias in statement.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]


def test_no_module_imports_a_private_name_of_another() -> None:
    found = {
        str(file.relative_to(SOURCES)): names
        for file in SOURCES.rglob("*.py")
        if (names := private_imports(file.read_text(encoding="utf-8")))
    }
    assert not found


def test_a_private_import_is_seen() -> None:
    assert private_imports("from g2vlm.export.ply import _header, write_ply") == ["g2vlm.export.ply._header"]
    assert private_imports("from g2vlm import __version__\nfrom os import _exit") == []
