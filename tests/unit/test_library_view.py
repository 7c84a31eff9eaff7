"""The library view: what it shows, what it changes, and that every change can be undone."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from library_helpers import contents, detector, disc_masks, discs, taught, vectors
from PIL import Image

from sam_detect.api import SAMDetect
from sam_detect.errors import LibraryError, NotFoundError, OutputError
from sam_detect.fading import IdentityFade
from sam_detect.interfaces import Labeller
from sam_detect.labelling import KNNLabeller, PrototypeLabeller
from sam_detect.labelling import leave_one_out as leaving
from sam_detect.labelling.leave_one_out import leave_one_out
from sam_detect.library import journal
from sam_detect.library.columns import Outlines
from sam_detect.library.reindex import reindex
from sam_detect.library.snapshot import LibrarySnapshot
from sam_detect.server import library_view
from sam_detect.server.library_files import FORMATS, export_annotations
from sam_detect.server.library_view import LibraryView, principal_components
from sam_detect.types import ExampleArrays, Frame, HardNegativeArrays, Masks
from sam_detect.vector_store import MemoryVectorStore, QdrantVectorStore


def a_library(*names: str) -> SAMDetect:
    return taught(QdrantVectorStore(), *names)


def state(made: SAMDetect) -> dict[str, Any]:
    """Everything of the library but the order."""
    whole = {point.id: point.payload for point in made.library.points()}
    return {key: json.dumps(payload, sort_keys=True) for key, payload in whole.items()}


def ids_of(made: SAMDetect, label: str, *, negative: bool = False) -> list[str]:
    return [p.id for p in made.library.listing(label) if p.payload["negative"] == negative]


def labels_of(view: LibraryView) -> dict[str, tuple[int, int]]:
    found = view.overview()["labels"]
    return {each["label"]: (each["positives"], each["negatives"]) for each in found}


# -- leave-one-out -----------------------------------------------------------------------------


def scattered(count: int, *, dimension: int = 16, seed: int = 0) -> LibrarySnapshot:
    """Examples about three centres, some of them negatives, some with one vector, some wrong."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, 3, count)
    found = random.normal(size=(3, dimension))[classes] + random.normal(size=(count, dimension))
    found[count // 2 : count // 2 + 4] = found[count // 2]
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    named = np.where(random.random(count) < 0.1, random.integers(0, 3, count), classes)
    arrays = ExampleArrays(
        ids=tuple(f"{number:08x}" for number in range(count)),
        labels=tuple(f"label {number}" for number in named),
        sources=tuple(f"picture {number % 7}" for number in range(count)),
        boxes_xywh=np.tile([0, 0, 5, 5], (count, 1)),
        negatives=random.random(count) < 0.15,
        vectors=found.astype(np.float32),
        areas=np.full(count, 25),
        hard_negatives=HardNegativeArrays.none(dimension),
    )
    outlines = Outlines.of_points(())
    return LibrarySnapshot("one", arrays, True, 0.8, outlines, MemoryVectorStore(), content="one")


def without(memory: LibrarySnapshot, row: int) -> LibrarySnapshot:
    """The memory as if one example had never been there."""
    arrays = memory.arrays
    rest = np.arange(len(arrays.ids)) != row
    fewer = replace(
        arrays,
        ids=tuple(np.array(arrays.ids)[rest].tolist()),
        labels=tuple(np.array(arrays.labels)[rest].tolist()),
        sources=tuple(np.array(arrays.sources)[rest].tolist()),
        boxes_xywh=arrays.boxes_xywh[rest],
        negatives=arrays.negatives[rest],
        vectors=arrays.vectors[rest],
        areas=arrays.areas[rest],
    )
    return replace(memory, arrays=fewer, generation=f"without {row}", content=f"without {row}")


@pytest.mark.parametrize("labeller", [KNNLabeller, PrototypeLabeller])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_example_is_labelled_by_all_others(seed: int, labeller: type[Labeller]) -> None:
    memory = scattered(60, seed=seed)
    found = leave_one_out(labeller(), memory)
    for row, (vector, each) in enumerate(zip(memory.arrays.vectors, found, strict=True)):
        [expected] = labeller().label(vector[None], without(memory, row))
        assert (each.label, each.best_label) == (expected.label, expected.best_label)
        assert each.confidence == pytest.approx(expected.confidence, abs=1e-5)
        own = each.best_label == memory.arrays.labels[row]
        if not memory.arrays.negatives[row]:
            assert (each.doubt < 0.5) == (own and each.confidence > 0)
        elif not own:
            assert each.doubt == 0


def test_a_large_library_gives_nearly_the_same_in_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = scattered(200, seed=4)
    one_by_one = leave_one_out(KNNLabeller(), memory)
    monkeypatch.setattr(leaving, "FITTING", 0)
    in_folds = leave_one_out(KNNLabeller(), memory)
    same = [a.best_label == b.best_label for a, b in zip(one_by_one, in_folds, strict=True)]
    assert np.mean(same) > 0.95


@pytest.mark.parametrize("labels", [["a"], ["a", "b"], ["a", "a"], ["a", "a", "b", "b", "c"]])
def test_few_examples_can_be_left_out(labels: list[str]) -> None:
    memory = scattered(max(8, len(labels)))
    rows = np.arange(len(memory.arrays.ids)) < len(labels)
    arrays = replace(leaving._some(memory.arrays, rows), labels=tuple(labels))
    found = leave_one_out(KNNLabeller(), replace(memory, arrays=arrays))
    for label, each in zip(labels, found, strict=True):
        assert labels.count(label) > 1 or each.best_label != label


def test_leaving_one_out_keeps_what_the_labeller_was_fitted_to() -> None:
    memory, labeller = scattered(40), KNNLabeller()
    fitted = labeller.fitted_to(memory, None)
    leave_one_out(labeller, memory)
    assert labeller.fitted_to(memory, None) is fitted


def test_a_thousand_examples_take_well_under_two_seconds() -> None:
    memory = scattered(1000, dimension=256)
    begun = time.thread_time()
    assert len(leave_one_out(KNNLabeller(), memory)) == 1000
    assert time.thread_time() - begun < 2


def test_a_wrong_label_comes_first_and_the_answer_is_kept_until_the_library_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = a_library("nut", "leaf")
    wrong = ids_of(made, "leaf")[0]
    view = LibraryView(made)
    view.move([wrong], "nut")
    calls = []

    def counted(*given: Any) -> Any:
        calls.append(1)
        return leave_one_out(*given)

    monkeypatch.setattr(library_view, "leave_one_out", counted)
    page = view.examples("nut")
    assert page.examples[0].id == wrong
    assert page.examples[0].others is not None
    assert page.examples[0].others.best_label == "leaf"
    assert [page.total, len(page.examples)] == [6, 6]
    view.examples("leaf")
    assert len(calls) == 1
    view.undo()
    assert view.examples("nut").total == 5
    assert len(calls) == 2


# -- changes and undo --------------------------------------------------------------------------

Act = Callable[[LibraryView, SAMDetect], Any]
ACTIONS: dict[str, Act] = {
    "rename": lambda view, made: view.rename("nut", "walnut"),
    "merge": lambda view, made: view.merge(["nut", "berry"], "leaf"),
    "move": lambda view, made: view.move(ids_of(made, "nut")[:2], "leaf", shown="nut"),
    "move negative": lambda view, made: view.move(ids_of(made, "leaf", negative=True), "berry"),
    "remove": lambda view, made: view.remove(ids_of(made, "nut")[1:3], shown="nut"),
    "remove label": lambda view, made: view.remove_label("leaf"),
    "undo batch": lambda view, made: view.undo_batch(made.library.log()[1].id),
}


def rich_library() -> SAMDetect:
    """Three labels, negatives, and a batch that relabelled and contradicted."""
    made = a_library("nut", "leaf", "berry")
    masks = disc_masks()
    made.add_examples_from_file(discs("berry", 7), masks[:3], "leaf", negative=True)
    made.add_examples_from_file(discs("nut", 0), masks[3:], "leaf")
    made.add_examples_from_file(discs("leaf", 1), masks[4:], "leaf", negative=True)
    made.add_examples_from_file(discs("nut", 8), masks[:1], "nut")
    return made


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("restarted", [False, True])
def test_every_change_can_be_undone_also_by_another_view(action: str, restarted: bool) -> None:
    made = rich_library()
    before, shown = state(made), vectors(made.library)
    view = LibraryView(made)
    change = ACTIONS[action](view, made)
    assert state(made) != before
    assert view.overview()["undo"]["id"] == change.id
    if restarted:
        view = LibraryView(detector(QdrantVectorStore()))
    done = view.undo()
    assert done.kept == 0
    assert state(made) == before
    now = vectors(made.library)
    assert all((now[key] == each).all() for key, each in shown.items())
    assert view.overview()["undo"] is None
    with pytest.raises(NotFoundError, match="no such change"):
        view.undo()


def test_undo_of_all_changes_in_turn() -> None:
    made = rich_library()
    before, view = state(made), LibraryView(made)
    view.rename("nut", "walnut")
    view.move(ids_of(made, "walnut")[:1], "berry")
    view.remove_label("walnut")
    view.merge(["leaf"], "berry")
    for _ in range(4):
        assert view.undo().kept == 0
    assert state(made) == before


def test_what_others_changed_meanwhile_stays() -> None:
    made = a_library("nut", "leaf")
    view, [one, two, *_] = LibraryView(made), ids_of(made, "nut")
    view.move([one, two], "leaf")
    other = detector(QdrantVectorStore()).library
    other.remove(ids=[two])
    assert (done := view.undo()).kept == 1
    assert done.restored == 1
    assert one in ids_of(made, "nut")
    assert two not in contents(made.library)
    view.remove([one])
    made.add_examples_from_file(discs("nut", 0), disc_masks(), "acorn")
    assert view.undo().kept == 1
    assert "nut" not in labels_of(view)


def test_a_change_of_which_a_part_was_made_can_be_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process leaves it that is killed between two writes."""
    made = rich_library()
    before, view = state(made), LibraryView(made)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sam_detect.library.writing.Writer.delete", killed)
        with pytest.raises(KeyboardInterrupt):
            view.rename("leaf", "lamina")
    assert state(made) != before
    again = LibraryView(detector(QdrantVectorStore()))
    assert again.undo().kept == 0
    assert state(made) == before


def test_nothing_is_changed_where_the_journal_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = a_library("nut")
    before, view = state(made), LibraryView(made)

    def full(*_: Any) -> None:
        raise OutputError("no room")

    monkeypatch.setattr(journal, "write_atomically", full)
    with pytest.raises(OutputError):
        view.remove_label("nut")
    assert state(made) == before


def test_undo_after_the_library_was_reindexed() -> None:
    made = a_library("nut", "leaf")
    view, chosen = LibraryView(made), ids_of(made, "nut")
    view.rename("leaf", "lamina")
    view.remove(chosen[:2])
    features = replace(made.pipeline.features, fade=IdentityFade())
    reindex(made.library, features)
    expected = vectors(made.library)
    again = LibraryView(detector(QdrantVectorStore()))
    assert again.undo().restored == 2
    assert again.undo().restored == 5
    assert labels_of(again) == {"leaf": (5, 0), "nut": (5, 0)}
    now = vectors(made.library)
    assert all(np.allclose(now[key], each, atol=1e-6) for key, each in expected.items())
    [one] = made.library.read([chosen[0]])
    assert np.allclose(now[one.id], features.embed_crops([one.crop])[0], atol=1e-6)


def test_merging_drops_what_says_that_the_object_is_not_the_label() -> None:
    made = a_library("nut", "leaf")
    masks = disc_masks()
    made.add_examples_from_file(discs("nut", 0), masks[:2], "leaf", negative=True)
    view = LibraryView(made)
    assert labels_of(view) == {"leaf": (5, 2), "nut": (5, 0)}
    change = view.merge(["nut"], "leaf")
    assert (change.examples, change.dropped) == (5, 2)
    assert labels_of(view) == {"leaf": (10, 0)}
    assert [p.id for p in made.library.listing()] == [e.id for e in made.library.read()]


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda view, ids: view.rename("nut", "leaf"), "there is a label 'leaf' already"),
        (lambda view, ids: view.rename("nut", " nut "), "is 'nut' already"),
        (lambda view, ids: view.rename("pear", "fig"), "has no label 'pear'"),
        (lambda view, ids: view.rename("nut", " "), "visible character"),
        (lambda view, ids: view.merge(["nut", "pear"], "leaf"), "has no label 'pear'"),
        (lambda view, ids: view.move([*ids, "0" * 36], "leaf"), "1 of 6 were removed meanwhile"),
        (lambda view, ids: view.move(ids, "fig", shown="leaf"), "5 of 5 have another label"),
        (lambda view, ids: view.move(ids, "nut"), "is 'nut' already"),
        (lambda view, ids: view.remove([]), "no example was chosen"),
        (lambda view, ids: view.remove_label("pear"), "has no label 'pear'"),
        (lambda view, ids: view.undo_batch("x"), "nothing is left"),
        (lambda view, ids: view.undo("x"), "no such change"),
        (lambda view, ids: view.examples("pear"), "no label 'pear'"),
        (lambda view, ids: view.page_of("x"), "not in the library"),
        (lambda view, ids: view.files.import_upload("x"), "choose the file again"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(act: Any, words: str) -> None:
    made = a_library("nut", "leaf")
    before, view = state(made), LibraryView(made)
    with pytest.raises((LibraryError, NotFoundError), match=words):
        act(view, ids_of(made, "nut"))
    assert state(made) == before
    assert view.overview()["undo"] is None


def test_only_so_many_changes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MOST_CHANGES", 3)
    made = a_library("nut")
    view = LibraryView(made)
    for number in range(5):
        view.rename("nut" if number == 0 else f"nut {number - 1}", f"nut {number}")
    assert len([each for each in view.log() if each["type"] == "change"]) == 3
    monkeypatch.setattr(journal, "MOST_BYTES", 1)
    view.remove_label("nut 4")
    assert [each["action"] for each in view.log() if each["type"] == "change"] == ["remove"]


def test_a_damaged_journal_is_no_obstacle_to_the_rest() -> None:
    made = a_library("nut", "leaf")
    view = LibraryView(made)
    view.rename("leaf", "lamina")
    change = view.remove_label("nut")
    folder = made.library.store.kept_path
    assert folder is not None
    (folder / "changes" / f"{change.id}.zip").write_bytes(b"PK")
    with pytest.raises(LibraryError, match="not a complete"):
        view.undo()
    (folder / "changes" / f"{change.id}.json").write_bytes(b"{")
    assert view.undo().change.action == "rename"


def test_the_undo_goes_with_the_library() -> None:
    made = a_library("nut")
    view = LibraryView(made)
    view.rename("nut", "fig")
    made.library.destroy()
    assert view.overview()["undo"] is None
    assert view.overview()["labels"] == []
    assert view.log() == []


# -- the map, thumbnails, pages ----------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (2, 1), (7, 30), (300, 6)])
def test_principal_components_are_those_of_the_definition(shape: tuple[int, int]) -> None:
    found = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    places = principal_components(found)
    assert places.shape == (shape[0], 2)
    assert np.array_equal(places, principal_components(found.copy()))
    if min(shape) < 3:
        return
    # The sign of an axis does not hang on the order of the examples.
    assert np.allclose(principal_components(found[::-1])[::-1], places, atol=1e-5)
    assert np.abs(places).max() == pytest.approx(1)
    values, axes = np.linalg.eigh(np.cov(found.T))
    expected = (found - found.mean(axis=0)) @ axes[:, np.argsort(-values)[:2]]
    expected /= np.abs(expected).max()
    for column in (0, 1):
        same = min(np.abs(places[:, column] - s * expected[:, column]).max() for s in (1, -1))
        assert same < 1e-4


def test_pages_are_bounded_and_an_example_is_found_on_its_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = a_library("nut", "nut", "leaf")
    view = LibraryView(made)
    first = view.examples("nut", limit=4)
    rest = view.examples("nut", limit=100_000, offset=4)
    assert (len(first.examples), len(rest.examples), rest.total) == (4, 6, 10)
    assert not {e.id for e in first.examples} & {e.id for e in rest.examples}
    monkeypatch.setattr(library_view, "MOST_EXAMPLES", 4)
    page = view.page_of(rest.examples[-1].id)
    assert page.offset == 8
    points = view.map()
    assert sorted(points.ids) == sorted(contents(made.library))
    assert points.labels.count("nut") == 10
    assert all(each.thumbnail.startswith("data:image/webp;base64,") for each in first.examples)


# -- files -------------------------------------------------------------------------------------


def test_pictures_of_annotations_are_named_by_their_common_folder_in_its_order(
    tmp_path: Path,
) -> None:
    made = detector(MemoryVectorStore())
    for name in ("p10.png", "p2.png", "p1.png"):
        path = tmp_path / "tray" / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(discs("nut", int(name[1:-4]))[..., ::-1]).save(path)
        made.add_examples_from_file(path, disc_masks(), "nut")
    (tmp_path / "made").mkdir()
    with zipfile.ZipFile(export_annotations(made.library, "coco", tmp_path / "made")) as archive:
        coco = json.loads(archive.read("annotations.json"))
    assert [image["file_name"] for image in coco["images"]] == ["p1.png", "p2.png", "p10.png"]
    (tmp_path / "yolo").mkdir()
    with zipfile.ZipFile(export_annotations(made.library, "yolo", tmp_path / "yolo")) as archive:
        names = archive.namelist()
        lists = archive.read("yolo/train.txt") + archive.read("yolo/val.txt")
    assert sorted(lists.decode().split()) == [f"./images/p{n}.png" for n in (1, 10, 2)]
    assert not [name for name in names if "images/" in name], "a library may name any file"


@pytest.mark.parametrize("name", FORMATS)
def test_annotations_are_written_in_every_format(name: str) -> None:
    made = a_library("nut", "leaf")
    made.add_examples_from_file(discs("nut", 9), disc_masks()[:1], "leaf", negative=True)
    with LibraryView(made).files.export(name) as file, zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names
        if name == "coco":
            data = json.loads(archive.read("annotations.json"))
            assert len(data["annotations"]) == 10
            assert [each["name"] for each in data["categories"]] == ["leaf", "nut"]
            assert len({each["file_name"] for each in data["images"]}) == 2
        if name == "labelme":
            assert len(names) == 2
    assert not file.exists()


def test_an_export_comes_back_and_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    made = rich_library()
    view = LibraryView(made)
    empty = LibraryView(detector(QdrantVectorStore(collection_name="other")))
    path = empty.files.new_upload()
    with view.files.export() as file:
        path.write_bytes(file.read_bytes())
    upload, plan = empty.files.check_upload(path)
    assert plan.added == len(made.library)
    assert empty.overview()["examples"] == 0
    empty.files.import_upload(upload)
    assert state(detector(QdrantVectorStore(collection_name="other"))) == state(made)
    assert not path.exists()


def test_a_hostile_upload_is_refused_without_our_paths_and_removed() -> None:
    view = LibraryView(a_library("nut"))
    path = view.files.new_upload()
    path.write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(LibraryError, match=r"^the file is not a complete"):
        view.files.check_upload(path)
    assert not path.exists()


ODD = ["", ".", "/", "..", "a/..", "//", "\\", ".hidden", "CON", "\0", "a\nb", " ", "x" * 9000,
       "x." + "y" * 400, "ü" * 200 + ".png", "a/b/c.png", "a/d/c.png"]  # fmt: skip


@pytest.mark.parametrize("sources", [ODD, *([each, each] for each in ODD)],
                         ids=["all", *map(str, range(len(ODD)))])  # fmt: skip
def test_annotations_are_exported_whatever_their_sources(sources: list[str]) -> None:
    """What an archive says of its pictures is from a stranger."""
    made = SAMDetect("naive", "average", vector_store="memory")
    for number, source in enumerate(sources):
        picture = np.full((40, 40, 3), 200, np.uint8)
        picture[10:20, 10:20], picture[0, 0] = (50, 90, 20), number
        mask = np.zeros((1, 40, 40), bool)
        mask[0, 10:20, 10:20] = True
        made.learn_frame(Frame(picture, source), Masks.from_dense(mask), ["nut"])
    view = LibraryView(made)
    for name in FORMATS:
        with view.files.export(name) as place, zipfile.ZipFile(place) as archive:
            named = archive.namelist()
            assert len(set(named)) == len(named)
            assert all(".." not in each.split("/") and each[0] != "/" for each in named)
            if name in ("labelme", "geojson", "imagej", "labelmap"):
                assert len(named) >= len(sources), "no picture is lost"
