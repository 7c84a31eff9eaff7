"""``sam-detect download-models`` as people run it, against a server on this machine."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_harness import Command, as_a_process, in_this_process
from model_server import COMMIT, ModelServer, content, running, use_hub

import sam_detect
from sam_detect.models.catalogue import CLIP_MODELS, SAM2_MODELS
from sam_detect.models.download import PARTIAL
from sam_detect.models.weights import cache_dir, models_dir, require_clip, require_sam2

pytest.importorskip("huggingface_hub")

DATA = content()
REPOSITORY = "facebook/sam2.1-hiera-tiny"
SLOW_S = 0.3
"""Pause after each of the 37 parts of a file that is still coming when another process starts."""


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with running() as made:
        yield made


@pytest.fixture(autouse=True)
def _local(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, server.url)


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


def repository() -> Path:
    """Where ``huggingface_hub`` keeps SAM 2.1 tiny."""
    cache = cache_dir()
    assert cache is not None
    return cache / f"models--{REPOSITORY.replace('/', '--')}"


def sam2_file() -> Path:
    return repository() / "snapshots" / COMMIT / "sam2.1_hiera_tiny.pt"


def partial_file() -> Path:
    return repository() / "blobs" / f"{hashlib.sha256(DATA).hexdigest()}{PARTIAL}"


def test_both_defaults_come_where_nothing_is_named(server: ModelServer) -> None:
    server.sam2("base_plus", DATA)
    clip = server.clip().content
    ran = as_a_process("download-models", "--json").worked()
    (told,) = ran.json
    assert [(each["kind"], each["name"], each["downloaded"]) for each in told["models"]] == [
        ("sam2", "sam2.1_hiera_base_plus", True),
        ("clip", "ViT-B-32/openai", True),
    ]
    assert [each["sha256"] for each in told["models"]] == [
        hashlib.sha256(data).hexdigest() for data in (DATA, clip)
    ]
    assert [each["published"] for each in told["models"]] == [True, True]
    assert "downloading sam2.1_hiera_base_plus (1 MB) from 127.0.0.1" in ran.err
    assert require_sam2("base").path.read_bytes() == DATA
    assert require_clip("base").path.read_bytes() == clip
    assert str(cache_dir()) in told["models"][1]["path"]


def test_the_same_as_a_module_and_from_python(server: ModelServer) -> None:
    server.sam2("tiny", DATA)
    line = [sys.executable, "-m", "sam_detect.download_models", "--sam-model", "tiny", "--json"]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
    assert '"downloaded": true' in ran.stdout
    assert "Warning" not in ran.stderr
    found = sam_detect.download_models(sam_model="tiny", progress=False)
    assert found == {"sam2.1_hiera_tiny": sam2_file()}
    assert len(server.gets) == 1


def test_the_function_and_the_module_of_one_name_do_not_hide_each_other() -> None:
    code = (
        "import importlib, sam_detect\n"
        "assert callable(sam_detect.download_models)\n"
        "module = importlib.import_module('sam_detect.download_models')\n"
        "from sam_detect.download_models import download_models\n"
        "import sam_detect.download_models\n"
        "assert sam_detect.download_models is download_models is module.download_models\n"
        "import sam_detect.errors\n"
        "assert sam_detect.errors.SamDetectError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert callable(sam_detect.download_models)
    assert importlib.import_module("sam_detect.download_models") is not sam_detect.download_models


def test_python_says_what_it_does_unless_told_not_to(
    server: ModelServer, capfd: pytest.CaptureFixture[str]
) -> None:
    server.sam2("tiny", DATA)
    server.sam2("small", DATA)
    sam_detect.download_models(sam_model=["tiny"])
    assert "downloading sam2.1_hiera_tiny" in capfd.readouterr().err
    sam_detect.download_models(sam_model=["small"], progress=False)
    assert capfd.readouterr() == ("", "")


def test_the_list_shows_every_model_and_what_is_here(server: ModelServer, command: Command) -> None:
    server.sam2("tiny", DATA)
    command("download-models", "--sam-model", "tiny").worked()
    ran = command("download-models", "--list").worked()
    rows = {line.split()[0]: line for line in ran.out.splitlines() if line.strip()}
    for model in (*SAM2_MODELS, *CLIP_MODELS):
        assert model.name in rows
        assert (model.licence or "") in rows[model.name]
    assert rows["sam2.1_hiera_tiny"].split()[1:] == ["tiny", "0.600", "Apache-2.0", "here"]
    assert ran.out.splitlines()[-1] == f"sam2.1_hiera_tiny: {sam2_file()}"
    assert "missing" in rows["sam2.1_hiera_large"]
    assert " 898 " in rows["sam2.1_hiera_large"]
    assert len(server.gets) == 1


def test_the_list_for_programs(server: ModelServer, command: Command) -> None:
    server.sam2("tiny", DATA)
    command("download-models", "--sam-model", "tiny").worked()
    (told,) = command("download-models", "--list", "--json").worked().json
    assert (told["folder"], told["cache"]) == (str(models_dir()), str(cache_dir()))
    rows = {row["name"]: row for row in told["models"]}
    assert len(rows) == len(SAM2_MODELS) + len(CLIP_MODELS)
    assert rows["sam2.1_hiera_tiny"] == {
        "kind": "sam2",
        "name": "sam2.1_hiera_tiny",
        "aliases": ["tiny"],
        "bytes": len(DATA),
        "licence": "Apache-2.0",
        "source": f"https://huggingface.co/{REPOSITORY}/resolve/main/sam2.1_hiera_tiny.pt",
        "state": "here",
        "path": str(sam2_file()),
    }
    assert rows["sam2_hiera_large"]["state"] == "missing"
    assert rows["sam2_hiera_large"]["path"] == str(models_dir() / "sam2" / "sam2_hiera_large.pt")
    (told,) = command("download-models", "--list", "--json", "--sam-model", "base").worked().json
    assert [row["name"] for row in told["models"]] == ["sam2.1_hiera_base_plus"]


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["--sam-model", "hug"], ["no SAM 2 model is named 'hug'", "tiny, small"], 2),
        (["--sam-model", "tiny"], ["has no sam2.1_hiera_tiny.pt (HTTP 404)"], 1),
        (["--sam-model", "tiny", "--offline"], ["SAM_DETECT_OFFLINE", "'naive'"], 1),
        (["tiny"], ["unexpected extra argument"], 2),
    ],
)
def test_what_goes_wrong_is_one_line(
    arguments: list[str], words: list[str], code: int, command: Command
) -> None:
    command("download-models", *arguments).failed(*words, code=code)


def test_all_names_are_looked_at_before_anything_is_fetched(
    server: ModelServer, command: Command
) -> None:
    server.sam2("tiny", DATA)
    command("download-models", "--sam-model", "tiny", "--sam-model", "no").failed("'no'", code=2)
    assert server.asked == []


def _started(*arguments: str, **how: Any) -> subprocess.Popen[bytes]:
    """The command, which Ctrl-C stops even if a shell's background jobs ignore that, and which
    writes blocks of 16 kB."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from huggingface_hub import constants; constants.DOWNLOAD_CHUNK_SIZE = 16384\n"
        f"from sam_detect.cli import main; main({['download-models', *arguments]!r})"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code], **{**pipes, **how})


def _wait_for(path: Path, size: int) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < deadline, f"{path} did not grow"
        time.sleep(0.01)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_download_is_continued(
    server: ModelServer, command: Command, how: signal.Signals
) -> None:
    served = server.sam2("tiny", DATA, drip_s=0.05)
    path, part = sam2_file(), partial_file()
    with _started("--sam-model", "tiny") as process:
        _wait_for(part, 100_000)
        process.send_signal(how)
        _, err = process.communicate(timeout=30)
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    assert b"Traceback" not in err
    have = part.stat().st_size
    assert 0 < have < len(DATA)
    assert not path.exists()
    served.drip_s = 0
    command("download-models", "--sam-model", "tiny").worked()
    assert path.read_bytes() == DATA
    assert server.gets[-1].range == f"bytes={have}-"
    assert server.gets[-1].status == 206
    assert not part.exists()


def test_two_processes_that_want_one_file_do_not_fight(server: ModelServer) -> None:
    served = server.sam2("tiny", DATA, drip_s=SLOW_S)
    with _started("--sam-model", "tiny", "--json") as first:
        _wait_for(partial_file(), 1)
        with _started("--sam-model", "tiny", "--json") as second:
            assert second.stderr is not None
            assert b"another process is getting sam2.1_hiera_tiny" in second.stderr.readline()
            served.drip_s = 0
            out = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert re.search(rb'"downloaded": true', out[0])
    assert re.search(rb'"downloaded": false', out[1])
    assert len(server.gets) == 1
    assert sam2_file().read_bytes() == DATA


def test_who_waits_takes_over_from_a_killed_process(server: ModelServer) -> None:
    served = server.sam2("tiny", DATA, drip_s=SLOW_S)
    with _started("--sam-model", "tiny") as first:
        _wait_for(partial_file(), 20_000)
        with _started("--sam-model", "tiny", "--json") as second:
            assert second.stderr is not None
            assert b"another process" in second.stderr.readline()
            first.kill()
            first.wait(30)
            served.drip_s = 0
            second.communicate(timeout=60)
    assert second.returncode == 0
    assert server.gets[-1].status == 206
    assert sam2_file().read_bytes() == DATA


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_bar(server: ModelServer) -> None:
    server.sam2("tiny", DATA, drip_s=0.01)
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    with _started("--sam-model", "tiny", stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while block := _read(ours):
            shown += block
    os.close(ours)
    assert process.returncode == 0
    assert b"downloading" in shown
    assert b"MB/s" in shown
    assert sam2_file().read_bytes() == DATA


def _read(terminal: int) -> bytes:
    """What a terminal shows next; nothing when its last writer has gone."""
    try:
        return os.read(terminal, 65_536)
    except OSError:
        return b""
