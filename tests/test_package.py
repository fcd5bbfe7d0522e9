"""What a wheel would hold, read from pyproject.toml and the tree."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

import easycompress

HOUSE = Path(easycompress.__file__).parent
ROOT = HOUSE.parent
ABOUT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

MODULE_OF = {"pyyaml": "yaml", "scikit-learn": "sklearn", "pillow": "PIL", "tomli": "tomllib"}
"""What is imported under another name than it is installed by."""

BY_OTHERS = {
    "onnxscript": "torch.onnx exports with it",
}
"""Dependencies that no module of ours imports, and who does."""


def test_every_file_of_the_packages_is_in_the_wheel() -> None:
    patterns = ABOUT["tool"]["setuptools"]["package-data"]["easycompress"]
    shipped = {path for pattern in patterns for path in HOUSE.glob(pattern)}
    others = {path for path in HOUSE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert others == shipped
    assert len(shipped) > 10


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for path in HOUSE.rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)


def test_one_version_everywhere() -> None:
    version = ABOUT["project"]["version"]
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    changes = re.search(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited is not None
    assert changes is not None
    assert easycompress.__version__ == version == cited[1] == changes[1]


def test_every_dependency_is_imported_somewhere() -> None:
    imported = set()
    for path in HOUSE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.split(".")[0] for name in names}
    named = [re.split(r"[<>=;! ]", line)[0].lower() for line in ABOUT["project"]["dependencies"]]
    idle = {name for name in named if MODULE_OF.get(name, name.replace("-", "_")) not in imported}
    assert idle == BY_OTHERS.keys()
