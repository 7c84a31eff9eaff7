"""Fixtures that every test may use."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "same examples in every run, on however busy a machine",
    derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
settings.load_profile("same examples in every run, on however busy a machine")

ROOT = Path(__file__).resolve().parent.parent
MOST_WORKERS = 4
KEPT = ("SAM_DETECT_TEST_DATA",)
"""What the suite itself is told by the environment."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--alone", choices=("only", "without"), help="only the tests marked alone, or the others"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than this process may use cores, since some tests wait for disks and other
    processes; but each takes 1 to 2 GB with torch."""
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    return min(len(usable) + 1, MOST_WORKERS)


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """What is imported stays: to go through all of it again and again took a fifth of the time."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Nor need a collection of garbage, as each measure of memory begins with, go through it."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Spares the few tests that run alone the import of all the other files."""
    if config.option.alone != "only" or not collection_path.match("test_*.py"):
        return None
    return "mark.alone" not in collection_path.read_text(encoding="utf-8") or None


@pytest.fixture(scope="session", autouse=True)
def _control_c_works() -> Iterator[None]:
    """A shell starts what runs in its background deaf to Ctrl-C, and so would our children be."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No fixture, of whatever scope, and no test sees the settings or libraries of whoever runs
    them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith(("SAM_DETECT_", "QDRANT_")) and name not in KEPT:
                patch.delenv(name)
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            patch.delenv(name, raising=False)
        patch.setenv("SAM_DETECT_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def test_data_dir() -> Path:
    """The folder of real annotated images; the test skips where it is not."""
    folder = Path(os.environ.get("SAM_DETECT_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no annotated images in {folder}: set SAM_DETECT_TEST_DATA")
    return folder


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """Small models gain nothing from threads that wait for one another on busy cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _own_home(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """No test sees the libraries or downloaded models of other tests."""
    own = tmp_path_factory.mktemp("own")
    home, cache = own / "home", own / "hub"
    home.mkdir()
    cache.mkdir()
    monkeypatch.setenv("SAM_DETECT_HOME", str(home))
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_TOKEN_PATH", str(cache / "token"))
    with contextlib.suppress(ImportError):
        from huggingface_hub import constants  # it reads the environment once, when imported

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield
    shutil.rmtree(own, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not _has_cuda():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and there is none here"))
    if "slow" not in (config.option.markexpr or ""):
        skip = pytest.mark.skip(reason="takes minutes: run with -m slow")
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(skip)
    if config.option.alone:
        _keep(config, items, alone=config.option.alone == "only")


def _keep(config: pytest.Config, items: list[pytest.Item], *, alone: bool) -> None:
    chosen: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        (chosen if bool(item.get_closest_marker("alone")) is alone else left).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = chosen


def _has_cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()
