"""Run by CI with the Python of an environment that holds nothing but the installed wheel."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import g2vlm

folder = Path(g2vlm.__file__).parent
assert "site-packages" in folder.parts, f"this is not the wheel: {folder}"
assert "torch" not in sys.modules, "importing g2vlm imports torch"

files = [str(path) for path in metadata.files("g2vlm") or ()]
strays = [path for path in files if not path.startswith(("g2vlm/", "g2vlm-")) and "bin/g2vlm" not in path]
assert not strays, f"files outside the package: {strays}"
assert "g2vlm/py.typed" in files
pictures = [path for path in files if path.startswith("g2vlm/examples/recon_images/")]
assert len(pictures) >= 2, f"example images are missing: {pictures}"

for name in g2vlm.__all__:
    assert getattr(g2vlm, name) is not None

version = subprocess.run(
    [sys.executable, "-m", "g2vlm", "--version"], capture_output=True, text=True, check=True
)
assert version.stdout.split() == ["g2vlm", metadata.version("g2vlm")] == ["g2vlm", g2vlm.__version__]
print(
    f"wheel {g2vlm.__version__}: {len(files)} files, {len(pictures)} example images, all public names import"
)

# Last, since it imports torch.
from g2vlm.model.native.library import SOURCES  # noqa: E402

sources = {path for path in files if path.startswith("g2vlm/model/native/") and path.endswith((".c", ".h"))}
assert sources == {f"g2vlm/model/native/{name}" for name in SOURCES}, f"native passes: {sorted(sources)}"
