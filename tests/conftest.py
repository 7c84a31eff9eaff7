"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


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
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the libraries or settings of whoever runs it, nor the other tests'."""
    for name in [*os.environ]:
        if name.startswith(("SAM_DETECT_", "QDRANT_")) and name != "SAM_DETECT_TEST_DATA":
            monkeypatch.delenv(name)
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path_factory.mktemp("home")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not _has_cuda():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and there is none here"))
    if "slow" in (config.option.markexpr or ""):
        return
    skip = pytest.mark.skip(reason="takes minutes: run with -m slow")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)


def _has_cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()
