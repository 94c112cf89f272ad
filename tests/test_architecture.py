import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "wsiseg").rglob("*.py"))


def loaded_by(code):
    out = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in out.stdout.split()}


@pytest.mark.parametrize(
    "code",
    [
        "import wsiseg",
        "from typer.testing import CliRunner\nfrom wsiseg.cli.app import app\nCliRunner().invoke(app, ['segment', '--help'])",
        "import wsiseg.survey",
    ],
)
def test_torch_and_dask_are_loaded_by_work_alone(code):
    loaded = loaded_by(code)
    assert "wsiseg" in loaded
    assert not loaded & {"torch", "dask", "distributed"}


def test_training_needs_little():
    loaded = loaded_by("import wsiseg.train, wsiseg.metrics\nfrom wsiseg.recipes import spn_ien")
    # Not rich: torch itself loads it where it is installed.
    assert not loaded & {"pydantic", "typer", "zarr", "dask", "shapely", "openslide", "safetensors"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_every_test_file_tests_something():
    for path in (ROOT / "tests").glob("test_*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert any(isinstance(n, ast.FunctionDef) and n.name.startswith("test_") for n in ast.walk(tree)), (
            path
        )
