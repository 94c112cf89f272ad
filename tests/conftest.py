"""What tests share: the real data, where it is, and calm libraries."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

# What is tested is small: a second thread costs more time than it saves, and four tests run at a time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

hypothesis_settings.register_profile(
    "tests",
    derandomize=True,
    deadline=None,  # two busy cores say nothing about a function's speed
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
hypothesis_settings.load_profile("tests")


LONG = (
    "test_cohort.py",
    "test_kill.py",
    "test_pipeline.py",
    "test_cli.py",
    "test_bundled.py",
    "test_train.py",
    "test_parallel.py",
)
"""Files of the longest tests, which begin first: what is left at the end is short, and no process waits for another's."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files before others."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of the real slides and labelled images; with CI=true they must be there."""
    folder = Path(os.environ.get("WSISEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        reason = f"{folder}: no real data here; set WSISEG_DATA"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def slides(data: Path) -> Path:
    """Folder of the real slides."""
    return data / "slides"


@pytest.fixture(scope="session")
def readers() -> Path:
    """Folder of the readers that want other versions than we do; with CI=true it must be there."""
    folder = Path(__file__).parents[1] / ".readers"
    if not folder.is_dir():
        reason = f"{folder}: not there; scripts/test makes it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
