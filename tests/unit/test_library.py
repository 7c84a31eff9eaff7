"""The library's parts: ids, crops as text, labels, commands to paste, safety. Over real stores: see
``tests/contracts/test_libraries.py``; with real processes: ``tests/integration``."""

from __future__ import annotations

import base64
import contextlib
import io
import shlex
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from library_helpers import detector, disc_masks, discs, taught
from PIL import Image
from strategies import QUICK, masks_hw

from sam_detect.api import SAMDetect
from sam_detect.cli.app import cli, run
from sam_detect.errors import (
    ConfigError,
    LibraryCorruptError,
    LibraryError,
    RecipeMismatchError,
    SamDetectError,
)
from sam_detect.fading import ExponentialFade, GaussianFade, IdentityFade, LinearFade
from sam_detect.library import lookup, manifest, places
from sam_detect.library.example import (
    Example,
    example_id,
    label_of,
)
from sam_detect.library.history import Added, with_label
from sam_detect.library.library import Library
from sam_detect.library.places import collection_of, library_of
from sam_detect.library.webp import decode_webp, encode_webp
from sam_detect.types import Crop, Frame, Masks, Point, Recipe
from sam_detect.vector_store import MemoryVectorStore, QdrantVectorStore

RECIPE = Recipe(
    embedder="average", embedder_version=1, model={}, fade="gaussian", fade_params={},
    occupancy=0.2, crop_side=256, crop_version=1, dimension=4,
)  # fmt: skip


def embedded(name: str = "sam_detect") -> QdrantVectorStore:
    """A store where the command line finds it."""
    return QdrantVectorStore(collection_name=name)


# -- ids ---------------------------------------------------------------------------------------


def test_ids_never_change() -> None:
    """Learnt by one version and again by another, an object must be the same: these are the ids
    of the first version."""
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    mask = np.zeros((1, 4, 6), bool)
    mask[0, 1:3, 2:5] = True
    rle = Masks.from_dense(mask).rle(0)
    assert rle == {"size": [4, 6], "counts": "9220003"}
    digest = Frame(picture).digest
    assert digest == "49ac11c47bbc0392d6fb73f41424ea11"
    named = {"digest": digest, "mask_rle": rle, "label": "nut"}
    assert example_id(**named, negative=False) == "e006125f-6ee6-5d10-a83c-e0d670c29b1c"  # type: ignore[arg-type]
    assert example_id(**named, negative=True) == "da8be6f3-b0a2-5f00-aeef-21a0facb3982"  # type: ignore[arg-type]


def test_an_id_is_of_the_pixels_and_the_mask_not_of_the_label_or_layout() -> None:
    picture = discs()[..., ::-1]
    assert Frame(picture).digest == Frame(np.ascontiguousarray(picture)).digest
    assert Frame(picture).digest != Frame(picture.reshape(80, 320, 3)).digest
    rles = [Masks.from_dense(disc_masks()).rle(i) for i in range(5)]
    digest = Frame(picture).digest
    ids = {example_id(digest=digest, mask_rle=rle, label="a", negative=False) for rle in rles}
    assert len(ids) == 5
    assert ids == {
        example_id(digest=digest, mask_rle=rle, label="b", negative=False) for rle in rles
    }
    assert not ids & {
        example_id(digest=digest, mask_rle=rle, label="a", negative=True) for rle in rles
    }


# -- crops as text -----------------------------------------------------------------------------


@QUICK
@given(
    hnp.arrays(
        np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)),
        elements=st.sampled_from([0, 1, 127, 128, 254, 255]) | st.integers(0, 255),
    )
)  # fmt: skip
def test_crops_come_back_bit_for_bit(image: np.ndarray) -> None:
    back = decode_webp(encode_webp(image))
    assert back.dtype == np.uint8
    assert back.shape == image.shape
    assert (back == image).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 256), (255, 1), (256, 255), (1024, 1023)])
@pytest.mark.parametrize("kind", ["noise", "flat", "ramp", "grey"])
def test_large_and_odd_crops_come_back_bit_for_bit(shape: tuple[int, int], kind: str) -> None:
    rng = np.random.default_rng(3)
    image = {
        "noise": rng.integers(0, 256, (*shape, 3)).astype(np.uint8),
        "flat": np.full((*shape, 3), 255, np.uint8),
        "ramp": (np.indices(shape).sum(0)[..., None] * [1, 3, 7] % 256).astype(np.uint8),
        "grey": np.repeat(rng.integers(0, 256, (*shape, 1)), 3, axis=2).astype(np.uint8),
    }[kind]
    assert (decode_webp(encode_webp(image)) == image).all()


def as_base64(image: Image.Image, kind: str) -> str:
    stream = io.BytesIO()
    image.save(stream, kind)
    return base64.b64encode(stream.getvalue()).decode()


def test_only_the_named_format_and_only_the_size_of_a_crop_is_decoded() -> None:
    with pytest.raises(ValueError, match="not a WEBP"):
        decode_webp(as_base64(Image.new("RGB", (3, 3)), "PNG"))
    with pytest.raises(ValueError, match="not a WEBP"):
        decode_webp(as_base64(Image.new("RGB", (3, 3)), "TIFF"))
    with pytest.raises(ValueError, match="5000x1"):
        decode_webp(encode_webp(np.zeros((1, 5000, 3), np.uint8)))
    with pytest.raises(ValueError, match="lossless"):
        decode_webp(as_base64(Image.new("RGB", (3, 3)), "WEBP"))


@QUICK
@given(st.binary(max_size=60), st.integers(0, 200), st.booleans())
def test_damaged_crops_are_a_value_error(noise: bytes, cut: int, keep_head: bool) -> None:
    whole = base64.b64decode(encode_webp(np.full((9, 7, 3), 200, np.uint8)))
    data = whole[:cut] + noise if keep_head else noise
    with contextlib.suppress(ValueError):
        assert decode_webp(base64.b64encode(data).decode()).shape[2] == 3


@QUICK
@given(masks_hw(some_pixel=True), st.floats(0.01, 1), st.text(min_size=1), st.booleans())
def test_an_example_comes_back_from_its_point(
    mask: np.ndarray, scale: float, text: str, negative: bool
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*mask.shape, 3)).astype(np.uint8)
    crop = Crop(image_rgb=image, mask=mask, scale=scale, window_xyxy=(-3, 0, 9, 12))
    rle = Masks.from_dense(mask[None]).rle(0)
    example = Example(
        id=str(uuid.uuid4()), label="a", negative=negative, source=text, bbox=[0, 0, 1, 1],
        area=1, added="2026-01-01T00:00:00+00:00", segmentation=rle, crop=crop, picture="ab",
    )  # fmt: skip
    back = Example.from_point(example.to_point())
    for name in ("id", "label", "negative", "source", "bbox", "area", "added", "picture"):
        assert getattr(back, name) == getattr(example, name)
    assert back.segmentation == rle
    assert (back.crop.image_rgb == image).all()
    assert (back.crop.mask == mask).all()
    assert back.crop.scale == pytest.approx(scale, rel=1e-9)
    assert back.crop.window_xyxy == crop.window_xyxy


# -- labels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [{}, {"label": "a"}, {"label": "a", "negative": 1}])
def test_a_point_without_label_is_damaged(payload: dict[str, object]) -> None:
    with pytest.raises(LibraryCorruptError, match="example x is damaged"):
        label_of(Point("x", None, payload))


def test_renaming_moves_the_id_of_a_negative_only() -> None:
    rle = Masks.from_dense(disc_masks()).rle(0)
    payload = {"label": "a", "negative": False, "picture": "ff", "segmentation": rle}
    point = Point("p", None, payload)
    assert (with_label(point, "b").id, with_label(point, "b").payload["label"]) == ("p", "b")
    negative = Point("n", None, {**payload, "negative": True})
    expected = example_id(digest="ff", mask_rle=rle, label="b", negative=True)
    assert with_label(negative, "b").id == expected
    old = Point("n", None, {**payload, "negative": True, "picture": ""})
    assert with_label(old, "b").id == with_label(old, "b").id != with_label(old, "c").id
    assert payload["label"] == "a", "nothing is changed in place"


def test_beginnings_of_ids_must_be_clear() -> None:
    store = MemoryVectorStore()
    vector = np.ones(3, np.float32)
    for number in range(3):
        store.upsert([Point(str(uuid.UUID(int=number)), vector, {"label": "a", "negative": False})])
    with pytest.raises(LibraryError, match="ids of 3 examples"):
        lookup.resolve(store, ["00000000"], "nuts")
    whole = str(uuid.UUID(int=2))
    assert lookup.resolve(store, [whole, f" {whole.upper()}"], "nuts") == [whole]
    with pytest.raises(LibraryError, match="no example '000' among its 3"):
        lookup.resolve(store, ["000"], "nuts")


# -- formats -----------------------------------------------------------------------------------


def test_manifests_of_this_version_are_checked_as_their_own() -> None:
    new = manifest.new_manifest("nuts", RECIPE)
    assert manifest.read(new, "here") == new
    assert Recipe(**manifest.read(new, "here")["recipe"]) == RECIPE
    assert manifest.with_new_generation(new)["generation"] != new["generation"]
    for garbage in (None, [], "x", 3, {}):
        with pytest.raises(LibraryCorruptError):
            manifest.read(garbage, "here")


@QUICK
@given(
    st.dictionaries(
        st.sampled_from([*RECIPE.to_dict(), "other"]),
        st.none() | st.integers() | st.text() | st.lists(st.integers()),
    )
)
def test_no_recipe_from_a_file_raises_anything_but_our_errors(change: dict[str, object]) -> None:
    new = manifest.new_manifest("nuts", RECIPE)
    new["recipe"] |= change
    with contextlib.suppress(SamDetectError):
        assert manifest.read(new, "here")["recipe"] == new["recipe"]


# -- commands to paste ---------------------------------------------------------------------------


def test_places_are_named_as_the_command_line_takes_them() -> None:
    assert library_of(collection_of("default")) == "default"
    assert places.options_of("/home/x/libraries/nuts") == "--library nuts"
    assert places.options_of("/home/x/libraries/sam_detect") == "--library default"
    url = "http://host:6333/collections/nuts"
    assert places.options_of(url) == "--library nuts --qdrant-url http://host:6333"
    assert places.options_of("memory") == ""


def pasted(command: str) -> int:
    words = shlex.split(command)
    assert words[0] == "sam-detect"
    return run(words[1:])


def learning(made: SAMDetect) -> None:
    """Learns something, which needs the library's own recipe."""
    made.add_example(discs("leaf", 9), "leaf", disc_masks()[0])


@pytest.mark.parametrize(
    "wanted",
    [
        {"embedder": "appearance"},
        {"fade_strategy": GaussianFade(sigma=30, min_fade=0.1)},
        {"fade_strategy": GaussianFade(sigma=0.1 + 0.2, max_distance=33.25)},
        {"fade_strategy": LinearFade(max_distance=100)},
        {"fade_strategy": ExponentialFade(decay=0.05, max_distance=90), "embedder": "appearance"},
        {"fade_strategy": IdentityFade()},
        {"fade": "blur", "sigma": 4.5},
        {"fade": "gaussian", "min_fade": 0.25},
    ],
)
def test_the_command_of_a_mismatch_works_when_pasted(wanted: dict[str, object]) -> None:
    taught(embedded("nuts"))
    with pytest.raises(RecipeMismatchError) as caught:
        learning(detector(embedded("nuts"), library="nuts", **{"embedder": None, **wanted}))
    said = str(caught.value)
    assert "leave the option out (in Python, the argument), or convert it: " in said
    assert pasted(said.partition("convert it: ")[2]) == 0
    again = detector(embedded("nuts"), library="nuts", **{"embedder": None, **wanted})
    assert [d.label for d in again.detect(discs("leaf", 9))] == ["leaf"] * 5


def test_the_command_names_the_library_that_the_store_is_not_the_one_of_the_settings() -> None:
    taught(embedded("nuts"))
    with pytest.raises(RecipeMismatchError) as caught:
        learning(detector(embedded("nuts"), embedder="appearance"))
    assert "reindex --library nuts --embedder" in str(caught.value)


def test_the_command_of_an_improved_embedder_works_when_pasted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taught(embedded())
    monkeypatch.setattr("sam_detect.embedding.average.AverageEmbedder.version", 2)
    with pytest.raises(RecipeMismatchError) as caught:
        learning(detector(embedded(), embedder=None))
    assert "improved since" in str(caught.value)
    assert "leave the option out" not in str(caught.value), "there is no option to leave out"
    assert pasted(str(caught.value).partition("since: ")[2]) == 0
    assert len(detector(embedded(), embedder=None).library) == 10


def test_where_no_command_helps_none_is_given() -> None:
    store = MemoryVectorStore()
    taught(store)
    for wanted in ({"occupancy": 0.4}, {"crop_side": 99}):
        with pytest.raises(RecipeMismatchError) as caught:
            detector(store, **wanted)
        assert "new library" in str(caught.value)
        assert "reindex" not in str(caught.value)
    with pytest.raises(RecipeMismatchError) as caught:
        learning(detector(store, embedder="appearance"))
    assert "sam-detect library" not in str(caught.value)

    class Local(IdentityFade):
        pass

    with pytest.raises(RecipeMismatchError) as caught:
        learning(detector(embedded_taught(), fade_strategy=Local()))
    assert "sam-detect library reindex" not in str(caught.value)
    assert "module of its own" in str(caught.value)


def embedded_taught() -> QdrantVectorStore:
    taught(embedded())
    return embedded()


# -- custom fades ------------------------------------------------------------------------------

FADE = """
from pathlib import Path
Path(__file__).with_suffix(".imported").touch()
class Half:
    def __init__(self, decay=2.0):
        self.decay = decay
    def apply(self, image, mask, distance_map):
        return image // 2
"""


def custom_fade(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """The fade's name, and the file that importing it leaves behind."""
    name = f"fade_{uuid.uuid4().hex}"
    (folder / f"{name}.py").write_text(FADE)
    monkeypatch.chdir(folder)
    return f"{name}:Half", folder / f"{name}.imported"


def forget(fade: str, trace: Path) -> None:
    """As if this were another process."""
    sys.modules.pop(fade.partition(":")[0])
    trace.unlink()


def test_a_custom_fade_is_recorded_and_the_mismatch_command_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fade, _ = custom_fade(tmp_path, monkeypatch)
    made = taught(embedded())
    with pytest.raises(RecipeMismatchError) as caught:
        learning(detector(embedded(), fade=fade, decay=0.5))
    command = str(caught.value).partition("convert it: ")[2]
    assert pasted(command) == 0
    assert made.library.recipe is not None
    assert (made.library.recipe.fade, made.library.recipe.fade_params) == (fade, {"decay": 0.5})
    again = detector(embedded(), embedder=None, fade=fade, decay=0.5)
    assert again.detect(discs("leaf", 9))[0].label == "leaf"


def test_a_library_never_imports_the_fade_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fade, trace = custom_fade(tmp_path, monkeypatch)
    made = taught(embedded(), fade=fade)
    assert trace.exists(), "the user named it"
    file = tmp_path / "carried.samlib"
    assert run(["library", "export", str(file)]) == 0
    forget(fade, trace)
    picture = tmp_path / "p.png"
    Image.fromarray(discs("nut", 8)).save(picture)
    commands = [
        ["library", "list"], ["library", "list", "--library", "default"], ["library", "stats"],
        ["library", "export", str(tmp_path / "y")], ["library", "import", str(file)],
        ["library", "import", str(file), "--library", "other"], ["library", "stats", "--json"],
        ["library", "show", next(made.library.listing()).id], ["library", "rename", "nut", "b"],
    ]  # fmt: skip
    for command in commands:
        assert run(command) == 0, capsys.readouterr().err
    refused = [
        ["detect", str(picture)], ["learn", str(picture), "--label", "a", "--masks", "auto"],
        ["library", "reindex"], ["library", "reindex", "--embedder", "appearance"],
        ["learn", str(picture), "--label", "a", "--masks", "auto", "--fade", "gaussian"],
        ["detect", str(picture), "--library", "other"],
    ]  # fmt: skip
    for command in refused:
        capsys.readouterr()
        assert run(command) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(RecipeMismatchError, match="custom fade"):
        detector(embedded(), embedder=None)
    assert run(["detect", str(picture), "--fade", "gaussian"]) == 0
    assert not trace.exists()
    assert fade.partition(":")[0] not in sys.modules
    assert run(["library", "reindex", "--fade", "gaussian"]) == 0
    assert not trace.exists(), "going back to a built-in fade needs no import either"


# -- the command line --------------------------------------------------------------------------


def ask(*arguments: str) -> str:
    """What a successful command prints on stdout."""
    result = CliRunner().invoke(cli, ["library", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    """The one line that a failing command says."""
    capsys.readouterr()
    assert run(["library", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line


def test_json_shapes(tmp_path: Path) -> None:
    import json

    made = taught(embedded("nuts"))
    made.add_examples_from_file(discs(), disc_masks()[:1], "leaf", negative=True)
    place = ("--library", "nuts", "--json")
    stats = json.loads(ask("stats", *place))
    assert set(stats) == {
        "library", "location", "examples", "negatives", "classes", "recipe", "bytes",
        "part_weights",
    }  # fmt: skip
    assert (stats["examples"], stats["negatives"]) == (11, 1)
    assert stats["classes"] == {"leaf": 5, "nut": 5}
    assert stats["recipe"] == made.recipe.to_dict()
    assert stats["bytes"] > 10_000
    assert json.loads(ask("list", "--json")) == {
        "libraries": [{"name": "nuts", "examples": 11, "classes": {"leaf": 5, "nut": 5}}]
    }
    rows = [json.loads(line) for line in ask("list", *place).splitlines()]
    assert len(rows) == 11
    assert set(rows[0]) == {"id", "label", "negative", "source", "bbox", "area", "added", "batch"}
    assert len(ask("list", "--label", "leaf", *place).splitlines()) == 6
    (row,) = [row for row in rows if row["negative"]]
    shown = json.loads(ask("show", row["id"][:8], *place))
    assert set(shown) == {*row, "segmentation"}
    assert {name: shown[name] for name in row} == row
    crop = tmp_path / "crop.png"
    ask("show", row["id"], "--output", str(crop), *place)
    example = made.library.get(row["id"])
    with Image.open(crop) as picture:  # enlarged, with the outline drawn in
        height, width = example.crop.mask.shape
        assert picture.width / picture.height == width / height
        assert picture.width >= width
    assert json.loads(ask("rename", "nut", "date", *place)) == {"renamed": 5}
    file = str(tmp_path / "nuts.samlib")
    assert json.loads(ask("export", file, *place)) == {"exported": 11, "file": file}
    assert json.loads(ask("remove", row["id"], *place)) == {"removed": 1}
    assert json.loads(ask("remove", "--label", "leaf", *place)) == {"removed": 5}
    assert json.loads(ask("import", file, *place)) == {
        "library": "nuts", "recipe": stats["recipe"], "classes": {"date": 5, "leaf": 5},
        "negatives": 1, "added": 6, "known": 5, "conflicts": [], "replaced": 0, "total": 11,
        "dry_run": False,
    }  # fmt: skip
    answer = json.loads(ask("reindex", "--embedder", "appearance", *place))
    assert set(answer) == {"reindexed", "recipe"}
    assert (answer["reindexed"], answer["recipe"]["embedder"]) == (11, "appearance")
    assert json.loads(ask("remove", "--all", "--yes", *place)) == {"removed": 11}
    assert json.loads(ask("list", "--json")) == {"libraries": []}


def test_tables_show_text_as_it_is() -> None:
    made = detector(embedded())
    made.add_examples_from_file(discs(), disc_masks(), "[red]Ø 東京[/red]")
    for arguments in (("list",), ("stats",), ("list", "--library", "default"), ("show",)):
        assert "[red]Ø" in ask(*arguments).replace("\n", "")


def test_what_is_unknown_is_named_with_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    taught(embedded("nuts"))
    nuts = ("--library", "nuts")
    for command in (
        ("rename", "date", "fig"),
        ("remove", "--label", "date"),
        ("list", "--label", "date"),
    ):
        said = refused(capsys, *command, *nuts)
        assert "no label 'date' (it has: leaf, nut)" in said
    for command in (("show", "12345678"), ("remove", "12345678")):
        said = refused(capsys, *command, *nuts)
        assert "no example '12345678'" in said
        assert "sam-detect library list --library nuts" in said
    for command in ("stats", "reindex"):
        assert "no library 'date'" in refused(capsys, command, "--library", "date", code=2)
    for command in (
        ("export", "x.samlib"),
        ("remove", "--all", "--yes"),
        ("rename", "a", "b"),
        ("show", "x"),
    ):
        assert "no library 'date'" in refused(capsys, *command, "--library", "date", code=2)
    assert "either" in refused(capsys, "remove", *nuts, code=2)
    assert "either" in refused(capsys, "remove", "1234", "--all", *nuts, code=2)
    for label in (" ", "two\nlines", "x" * 300):
        refused(capsys, "rename", "nut", label, *nuts)
    assert "1 to 100" in refused(capsys, "stats", "--library", "../up", code=2)
    assert taught(embedded("nuts")).library.stats()["examples"] == 10


def test_occupancy_cannot_be_reindexed(capsys: pytest.CaptureFixture[str]) -> None:
    taught(embedded())
    said = refused(capsys, "reindex", "--occupancy", "0.5", code=2)
    assert "occupancy 0.2" in said
    assert "learn them again" in said


# -- damaged directories -----------------------------------------------------------------------


def tree(folder: Path) -> dict[str, bytes]:
    """Every file but the locks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", ".queue")
    }


def _garbage_manifest(folder: Path) -> None:
    (folder / "library.json").write_bytes(b"\x00garbage{")


def _foreign_manifest(folder: Path) -> None:
    import json

    state = json.loads((folder / "library.json").read_text())
    state["manifest"] = {"a": 1}
    (folder / "library.json").write_text(json.dumps(state))


def _missing_manifest(folder: Path) -> None:
    (folder / "library.json").unlink()


def _missing_shard(folder: Path) -> None:
    import shutil

    (shard,) = folder.glob("shard-*")
    shutil.rmtree(shard)


def _shard_is_a_file(folder: Path) -> None:
    _missing_shard(folder)
    (folder / "shard-1").write_bytes(b"x")


@pytest.mark.parametrize(
    "damage",
    [_garbage_manifest, _foreign_manifest, _missing_manifest, _missing_shard, _shard_is_a_file],
)
def test_a_damaged_directory_is_one_line_and_left_alone(
    damage: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    taught(embedded("good"), "nut")
    folder = Path(taught(embedded("bad"), "nut").library.store.location)
    assert callable(damage)
    damage(folder)
    before = tree(folder)
    picture = tmp_path / "p.png"
    Image.fromarray(discs()).save(picture)
    for command in (
        ["stats"], ["rename", "a", "b"], ["remove", "--label", "nut"],
        ["export", str(tmp_path / "x.samlib")], ["reindex"], ["list"], ["show", "1234"],
    ):  # fmt: skip
        assert str(folder) in refused(capsys, *command, "--library", "bad")
    for words in (
        ["detect", str(picture)],
        ["learn", str(picture), "--label", "a", "--masks", "auto"],
    ):
        assert run([*words, "--library", "bad"]) == 1
    capsys.readouterr()
    found = json.loads(ask("list", "--json"))["libraries"]
    assert [row["name"] for row in found] == ["bad", "good"]
    assert str(folder) in found[0]["error"]
    assert found[1] == {"name": "good", "examples": 5, "classes": {"nut": 5}}
    assert "good" in ask("list")
    assert tree(folder) == before, "nothing is deleted or changed"
    if damage not in (_missing_shard, _shard_is_a_file):
        assert str(folder) in refused(capsys, "remove", "--all", "--yes", "--library", "bad")
        assert tree(folder) == before
    else:
        ask("remove", "--all", "--yes", "--library", "bad")
        assert not tree(folder), "its manifest says that it is a library of ours"
    assert not (tmp_path / "x.samlib").exists()


def test_a_damaged_crop_does_not_stop_detecting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = taught(embedded())
    point = next(made.library.store.scan(with_vectors=True))
    made.library.store.upsert([replace(point, payload={**point.payload, "crop_webp": "AAAA"})])
    assert detector(embedded()).detect(discs("leaf", 9))[0].label == "leaf"
    for command in (["show", point.id], ["reindex"], ["export", str(tmp_path / "x.samlib")]):
        said = refused(capsys, *command)
        assert point.id in said
        assert "sam-detect library repair --library default" in said
    assert list(tmp_path.iterdir()) == []
    ask("remove", point.id)
    ask("export", str(tmp_path / "x.samlib"))
    assert len(Library(embedded(), "default")) == 9


def test_an_impossible_setting_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError):
        detector(MemoryVectorStore(), sigma=-1)
    refused(capsys, "reindex", "--sigma", "0", code=2)


def learn(made: SAMDetect, mask: np.ndarray, *, seed: int = 0, negative: bool = False) -> Added:
    return made.add_examples_from_file(discs(seed=seed), mask, "nut", negative=negative)


def polarities(made: SAMDetect) -> list[bool]:
    return sorted(label_of(point)[1] for point in made.library.listing())


def shifted(mask: np.ndarray, pixels: int) -> np.ndarray:
    return np.roll(mask, pixels, axis=1)


@pytest.mark.parametrize("pixels", [0, 1])
def test_a_negative_takes_back_that_the_same_object_has_the_label(pixels: int) -> None:
    made, mask = detector(), disc_masks()[0]
    learn(made, mask)
    done = learn(made, shifted(mask, pixels), negative=True)
    assert (done.added, done.relabelled, done.total) == (0, 1, 1)
    assert polarities(made) == [True]


def test_a_positive_takes_back_that_the_same_object_does_not_have_the_label() -> None:
    made, mask = detector(), disc_masks()[0]
    learn(made, mask, negative=True)
    done = learn(made, mask)
    assert (done.added, done.relabelled, done.total) == (0, 1, 1)
    assert polarities(made) == [False]


def test_a_negative_takes_back_nothing_else() -> None:
    made, masks = detector(), disc_masks()
    learn(made, masks[:2])
    learn(made, masks[0], seed=1)
    made.add_examples_from_file(discs(), shifted(masks[2], 1), "leaf")
    for mask in (shifted(masks[0], 9), masks[2]):  # another place; another label
        learn(made, mask, negative=True)
    learn(made, masks[1], seed=1, negative=True)  # another picture
    assert polarities(made) == [False] * 4 + [True] * 3
