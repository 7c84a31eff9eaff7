"""Models and recipes of others: nothing that they name is run, loaded or looked for."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

from cli_harness import DISCS, Command, box_around, in_this_process, saved  # noqa: E402
from sam2_helpers import write_small_sam2  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SHELL = """model:
  _target_: sam2.modeling.sam2_base.SAM2Base
  image_encoder:
    _target_: sam2.modeling.sam2_base.torch.utils.collect_env.run
    _args_: ["echo run > danger"]
"""
ALIASES = "a: &a [x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture
def sam(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """The command line in a folder with a picture."""
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "shapes.png")
    return in_this_process(capfd)


def with_config(config: str) -> str:
    """A sound checkpoint with a config of somebody else beside it."""
    path = write_small_sam2(Path())
    path.with_suffix(".yaml").write_text(config, encoding="utf-8")
    return f"./{path}"


def edited(archive: Path, change: Callable[[dict[str, Any]], None], to: Path) -> Path:
    """An exported library with another manifest."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "library.json":
                manifest = json.loads(data)
                change(manifest)
                data = json.dumps(manifest).encode()
            new.writestr(name, data)
    return to


@pytest.mark.parametrize("part", ["segmenter", "embedder"])
def test_a_config_beside_the_weights_runs_no_command(sam: Command, part: str) -> None:
    model = with_config(SHELL)
    sam("shapes.png", f"--{part}", "sam2", "--sam-model", model).failed(
        "small.yaml", "image_encoder._target_", code=2
    )
    assert not Path("danger").exists()


def test_a_config_of_aliases_takes_no_memory(sam: Command) -> None:
    sam("shapes.png", "--sam-model", with_config(ALIASES + SHELL)).failed("alias", code=2)


def test_an_imported_library_runs_no_command(sam: Command, tmp_path: Path) -> None:
    learn = ("learn", "shapes.png", "--label", "disc", "--box", box_around(*DISCS[0]))
    model = write_small_sam2(Path())
    sam(*learn, "--segmenter", "naive", "--embedder", "sam2", "--sam-model", model).worked()
    sam("library", "export", "good.zip").worked()
    evil = tmp_path / "theirs"
    evil.mkdir()
    (evil / "m.pt").write_bytes(model.read_bytes())
    (evil / "m.yaml").write_text(SHELL)

    def name_it(manifest: dict[str, Any]) -> None:
        manifest["recipe"]["model"]["model_size"] = str(evil / "m.pt")

    edited(Path("good.zip"), name_it, Path("bad.zip"))
    sam("library", "import", "bad.zip", "--library", "theirs")
    ran = sam("detect", "shapes.png", "--library", "theirs")
    assert not Path("danger").exists()
    assert ran.code != 0
    assert "Traceback" not in ran.err
