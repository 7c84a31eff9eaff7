"""Small models of random weights, so that the parts that run models keep the contracts, too."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from library_helpers import local_mode_store

from sam_detect.interfaces import VectorStore
from sam_detect.vector_store import MemoryVectorStore, QdrantVectorStore

SERVER_IMAGE = "qdrant/qdrant:v1.19.0"


@pytest.fixture(scope="session")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of weights of ``sam2`` and ``clip``; nothing where the extra is not installed."""
    try:
        import open_clip  # noqa: F401
        import sam2  # noqa: F401
    except ModuleNotFoundError:
        return {}
    from sam2_helpers import write_small_sam2
    from small_models import write_small_clip

    folder = tmp_path_factory.mktemp("models")
    return {"sam2": write_small_sam2(folder, sure=True), "clip": write_small_clip(folder / "clip")}


def _memory(_: Path, __: pytest.FixtureRequest) -> VectorStore:
    return MemoryVectorStore()


def _embedded(folder: Path, _: pytest.FixtureRequest) -> VectorStore:
    return QdrantVectorStore(path=folder, collection_name=_name(), lock_timeout_s=5)


def _local_mode(_: Path, __: pytest.FixtureRequest) -> VectorStore:
    return local_mode_store()


def _server(_: Path, request: pytest.FixtureRequest) -> VectorStore:
    url = request.getfixturevalue("server_url")
    return QdrantVectorStore(url=url, collection_name=_name())


def _name() -> str:
    return f"lib-{uuid.uuid4().hex[:8]}"


BUILDERS = {
    "memory": _memory,
    "embedded": _embedded,
    "server-semantics": _local_mode,
    "server": _server,
}
VARIANTS = [
    pytest.param(build, id=name, marks=[pytest.mark.docker] if name == "server" else [])
    for name, build in BUILDERS.items()
]


@pytest.fixture(params=VARIANTS)
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], VectorStore]:
    """Makes stores of one kind that a library can live in."""
    return lambda: request.param(tmp_path, request)


@pytest.fixture
def store(make_store: Callable[[], VectorStore]) -> Iterator[VectorStore]:
    made = make_store()
    yield made
    made.destroy()


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A real Qdrant server in a container."""
    try:
        import docker

        docker.from_env(timeout=5).ping()
    except Exception as error:
        pytest.skip(f"no Docker engine answers here: {str(error)[:80]}")
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs

    with DockerContainer(SERVER_IMAGE).with_exposed_ports(6333) as container:
        wait_for_logs(container, "Qdrant HTTP listening", timeout=60)
        yield f"http://{container.get_container_host_ip()}:{container.get_exposed_port(6333)}"
