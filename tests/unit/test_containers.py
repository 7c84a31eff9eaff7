"""What the images and the compose file promise, read from them: no engine is needed for that."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from sam_detect.cli.app import cli

yaml = pytest.importorskip("yaml", reason="the extra 'evaluate' is not installed")

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted((ROOT / "scripts").glob("*/Dockerfile"))
SECRET = re.compile(r"token|key|secret|password", re.IGNORECASE)


def instructions(path: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments."""
    lines = [
        line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name, rest.strip()) for name, _, rest in found]


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    return dict(found["services"])


def test_both_images_are_looked_at() -> None:
    assert [path.parent.name for path in DOCKERFILES] == ["service", "worker"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_an_image_is_pinned_and_runs_as_nobody_special(path: Path) -> None:
    found = instructions(path)
    images = [rest.partition(" AS ") for name, rest in found if name == "FROM"]
    stages = {stage for _, _, stage in images}
    for image in [image for image, _, _ in images if image not in stages]:
        assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*(@sha256:[0-9a-f]{64})?", image)
    users = [rest for name, rest in found if name == "USER"]
    assert users, "it would run as root"
    assert users[-1] not in ("root", "0")
    assert not [rest for name, rest in found if name == "ADD"]
    for rest in [rest for name, rest in found if name in ("ENV", "ARG")]:
        assert not SECRET.search(rest)
    for rest in [rest for name, rest in found if name in ("ENTRYPOINT", "CMD")]:
        json.loads(rest)  # the exec form: a signal reaches the program itself
    for rest in [rest for name, rest in found if name == "RUN" and "pip install" in rest]:
        assert "--constraint scripts/constraints.txt" in rest or "--require-hashes" in rest


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_what_is_copied_is_there_and_is_sent_to_the_engine(path: Path) -> None:
    ignored = path.with_name("Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    for rest in [rest for name, rest in instructions(path) if name == "COPY"]:
        for source in shlex.split(rest)[:-1]:
            assert (ROOT / source).exists()
            assert source in sent
    assert "*" in ignored
    extras = set(re.findall(r"extras=([\w,]+)", path.read_text(encoding="utf-8")))
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in {each for line in extras for each in line.split(",")}:
        assert f"\n{extra} = [" in declared


def test_the_service_says_whether_it_is_well() -> None:
    found = dict(instructions(ROOT / "scripts" / "service" / "Dockerfile"))
    assert "/healthz" in found["HEALTHCHECK"]
    assert found["VOLUME"] == "/data"


def test_ports_are_open_to_this_machine_only_and_no_secret_is_written() -> None:
    for service in services().values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        for each in service.get("environment", ()):
            name, given, _ = each.partition("=")
            assert not (given and SECRET.search(name)), f"{name} would be in the file"


def test_what_is_ours_may_do_little() -> None:
    ours = {name: each for name, each in services().items() if "build" in each}
    assert set(ours) == {"service", "gpu", "page"}
    for name, service in ours.items():
        assert service["profiles"] == [name], "docker compose up starts Qdrant alone"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert service["depends_on"]["qdrant"]["condition"] == "service_healthy"
        assert (ROOT / service["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("name", ["service", "page"])
def test_the_commands_are_those_of_the_command_line(name: str) -> None:
    words = services()[name]["command"]
    command = cli.get_command(None, words[0])  # type: ignore[arg-type]
    assert command is not None
    context = command.make_context(words[0], list(words[1:]), resilient_parsing=True)
    assert context.params["host"] == "0.0.0.0"
    port = context.params["port"]
    assert services()[name]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_a_service_on_a_gpu_asks_for_one_and_for_the_image_with_models() -> None:
    gpu = services()["gpu"]
    assert gpu["build"]["args"]["DEVICE"] == "cuda"
    [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    ports = [each["ports"] for each in services().values()]
    assert len({port.rpartition(":")[0] for of in ports for port in of}) == sum(map(len, ports))


def test_no_service_takes_all_memory_and_none_restarts_for_ever_without_pictures() -> None:
    for service in services().values():
        assert service["mem_limit"]
        assert service["pids_limit"]
    page = services()["page"]
    assert page["restart"] == "on-failure:3"
    [pictures] = [each for each in page["volumes"] if isinstance(each, dict)]
    assert pictures["bind"]["create_host_path"] is False, "a folder that is missing is an error"
    assert pictures["read_only"] is True


def test_the_worker_is_tested_in_its_image_and_has_the_models_that_are_asked_for() -> None:
    found = instructions(ROOT / "scripts" / "worker" / "Dockerfile")
    stages = [rest for name, rest in found if name == "FROM"]
    assert stages == ["python:3.12-slim-bookworm AS worker", "worker AS test", "worker"]
    assert any("pytest" in rest and "test_worker.py" in rest for _, rest in found)
    assert ("ARG", 'MODELS="base"') in found
    assert any("for model in $MODELS" in rest and "download-models" in rest for _, rest in found)
