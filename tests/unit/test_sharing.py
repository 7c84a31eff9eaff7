"""What parts share: one loaded model, one encoding of a frame; and that nothing of it stays."""

from __future__ import annotations

import gc
import os
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

from sam2_helpers import write_small_sam2  # noqa: E402
from small_models import write_small_clip  # noqa: E402

from sam_detect import SAMDetect  # noqa: E402
from sam_detect.embedding.clip import CLIPEmbedder  # noqa: E402
from sam_detect.embedding.sam2 import SAM2Embedder  # noqa: E402
from sam_detect.models import clip as clip_module  # noqa: E402
from sam_detect.models import sam2 as sam2_module  # noqa: E402
from sam_detect.models.sam2 import load_sam2, shared_sam2  # noqa: E402
from sam_detect.models.sam2_features import FRAMES_KEPT, SAM2Features, frame_encoder  # noqa: E402
from sam_detect.models.sharing import Shared, WhileAlive  # noqa: E402
from sam_detect.segmentation.sam2 import SAM2Segmenter  # noqa: E402
from sam_detect.types import Frame, Masks  # noqa: E402
from tests.closeness import assert_same_vectors, same_vectors  # noqa: E402

CPU = torch.device("cpu")
FP32, BF16 = torch.float32, torch.bfloat16

pytestmark = pytest.mark.usefixtures("one_torch_thread")


class Thing:
    """Anything that can be held weakly."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_sam2(tmp_path_factory.mktemp("sam2"), sure=True)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The SAM 2 checkpoints and CLIP weights that are read from now on."""
    gc.collect()
    found: list[Any] = []
    read_sam2, load_clip = sam2_module.read_weights, clip_module.load_clip
    monkeypatch.setattr(
        sam2_module, "read_weights", lambda path: found.append(path) or read_sam2(path)
    )
    monkeypatch.setattr(
        clip_module,
        "load_clip",
        lambda files, **where: found.append(files.path) or load_clip(files, **where),
    )
    return found


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each real pass through a SAM 2 trunk has seen."""
    from sam2.modeling.backbones.hieradet import Hiera

    seen: list[int] = []
    forward = Hiera.forward
    monkeypatch.setattr(Hiera, "forward", lambda self, x: seen.append(len(x)) or forward(self, x))
    return seen


def coins(shift: int = 0) -> Frame:
    part = skimage.data.coins()[shift : 150 + shift, :180, None]
    return Frame(np.repeat(part, 3, axis=2))


def discs(size_hw: tuple[int, int] = (150, 180)) -> Masks:
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    return Masks.from_dense(
        np.stack([(x - 40) ** 2 + (y - 50) ** 2 < 400, (x - 120) ** 2 + (y - 90) ** 2 < 900])
    )


# Whatever is shared


def test_a_thing_is_made_once_and_gone_with_its_last_holder() -> None:
    shared: Shared[Thing] = Shared()
    first, other = shared.get("a", Thing), shared.get("b", Thing)
    assert shared.get("a", lambda: pytest.fail("made again")) is first
    assert other is not first
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None
    assert isinstance(shared.get("a", Thing), Thing)


def test_threads_that_ask_at_once_get_one_thing() -> None:
    shared: Shared[Thing] = Shared()
    ready, made = threading.Barrier(4), []

    def make() -> Thing:
        made.append(1)
        threading.Event().wait(0.02)  # lets the other threads come, too
        return Thing()

    def ask(_: int) -> Thing:
        ready.wait(timeout=10)
        return shared.get("a", make)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert len(made) == 1
    assert all(each is found[0] for each in found)


def test_what_could_not_be_made_is_made_the_next_time() -> None:
    shared: Shared[Thing] = Shared()
    with pytest.raises(ZeroDivisionError):
        shared.get("a", lambda: 1 // 0)
    assert isinstance(shared.get("a", Thing), Thing)


def test_values_live_as_long_as_their_owners_and_only_the_last_ones() -> None:
    kept: WhileAlive[Thing, Thing] = WhileAlive(2)
    owners = [Thing() for _ in range(3)]
    values = [kept.of(owner, Thing) for owner in owners[:2]]
    assert [kept.of(owner, Thing) for owner in owners[:2]] == values
    kept.put(owners[0], values[0])  # the last one now
    kept.of(owners[2], Thing)
    assert kept.of(owners[0], Thing) is values[0]
    assert kept.of(owners[1], Thing) is not values[1], "the oldest had to go"
    value = weakref.ref(values[0])
    del values
    owners.clear()
    gc.collect()
    assert (len(kept), value()) == (0, None)


def test_what_another_thread_keeps_meanwhile_is_not_taken() -> None:
    kept: WhileAlive[Thing, Thing] = WhileAlive(1)
    mine, other, value = Thing(), Thing(), Thing()

    def make() -> Thing:
        kept.put(other, Thing())
        return value

    assert kept.of(mine, make) is value
    assert kept.of(mine, lambda: pytest.fail("made again")) is value


# Models


def test_segmenter_and_embedder_of_a_detector_share_one_model(
    checkpoint: Path, reads: list[Any]
) -> None:
    def detector() -> SAMDetect:
        return SAMDetect(segmenter="sam2", embedder="sam2", sam_model=str(checkpoint),
                         vector_store="memory", device="cpu")  # fmt: skip

    made = detector()
    assert reads == [checkpoint]
    again = detector()
    assert len(reads) == 1, "another detector, too"
    model = weakref.ref(made.segmenter.encoder.loaded.model)  # type: ignore[attr-defined]
    del made
    gc.collect()
    assert model() is not None
    del again
    gc.collect()
    assert model() is None, "no detector uses it"
    detector()
    assert len(reads) == 2


def test_other_weights_and_devices_are_other_models(tmp_path: Path) -> None:
    path = write_small_sam2(tmp_path)
    first = shared_sam2(path, device="cpu")
    assert shared_sam2(str(path), device="cpu") is first
    assert shared_sam2(first, device="cpu") is first
    assert shared_sam2(write_small_sam2(tmp_path, "other"), device="cpu") is not first
    own = load_sam2(path, device=CPU)
    assert own is not first, "asked for as one's own"
    assert SAM2Segmenter(own).encoder.loaded is SAM2Embedder(own)._frames.loaded is own


def test_a_file_that_changed_is_loaded_anew(tmp_path: Path) -> None:
    path = write_small_sam2(tmp_path)
    first = shared_sam2(path, device="cpu")
    write_small_sam2(tmp_path, seed=1)
    os.utime(path, ns=(1, 1))  # another time, however fast the test was
    again = shared_sam2(path, device="cpu")
    assert again is not first
    assert again.digest != first.digest


def test_clip_is_shared_and_forgotten(tmp_path: Path, reads: list[Any]) -> None:
    weights = write_small_clip(tmp_path / "clip")
    made, again = (CLIPEmbedder(str(weights), device="cpu") for _ in range(2))
    assert made._loaded is again._loaded
    assert len(reads) == 1
    write_small_clip(weights.parent, seed=1)
    os.utime(weights, ns=(1, 1))
    assert CLIPEmbedder(str(weights), device="cpu")._loaded is not made._loaded
    model = weakref.ref(made._loaded.model)
    del made, again
    gc.collect()
    assert model() is None


# Frames


@pytest.fixture
def both(checkpoint: Path) -> tuple[SAM2Segmenter, SAM2Embedder]:
    return (
        SAM2Segmenter(checkpoint, "cpu", points_per_side=4, dtype="fp32"),
        SAM2Embedder(checkpoint, device="cpu", pooling="frame"),
    )


def test_a_detector_encodes_a_frame_once(checkpoint: Path, encodings: list[int]) -> None:
    detector = SAMDetect(segmenter="sam2", embedder="sam2", sam_model=str(checkpoint),
                         pooling="frame", points_per_side=8, vector_store="memory",
                         device="cpu")  # fmt: skip
    frame = coins()
    assert (
        detector.add_examples_from_file(
            frame, detector.pipeline.all_proposals(frame)[:5], "coin"
        ).added
        > 1
    )
    assert encodings == [1], "learnt: outlined, described, and looked around"
    found = detector.detect(coins(20))
    assert len(found) > 1
    assert encodings == [1, 1]


def test_who_encoded_a_frame_changes_no_vector(
    both: tuple[SAM2Segmenter, SAM2Embedder], encodings: list[int]
) -> None:
    segmenter, embedder = both
    alone = embedder.embed_frame(coins(), discs())
    handed = coins()
    segmenter.propose(handed)
    assert encodings == [1, 1]
    assert_same_vectors(embedder.embed_frame(handed, discs()), alone)
    assert encodings == [1, 1], "the segmenter's features were used"
    embedder.embed_frame(coins(), discs())
    assert encodings == [1, 1, 1], "another frame, even of the same pixels"


def test_crops_and_frames_are_encoded_alike(checkpoint: Path) -> None:
    loaded = shared_sam2(checkpoint, device="cpu")
    whole = frame_encoder(loaded, FP32)(coins()).image_embed
    torch.testing.assert_close(SAM2Features(loaded)([coins().image_rgb]), whole, rtol=0, atol=1e-6)


def test_features_of_another_precision_are_never_taken(
    checkpoint: Path, both: tuple[SAM2Segmenter, SAM2Embedder], encodings: list[int]
) -> None:
    _, exact = both
    expected = exact.embed_frame(coins(), discs())
    coarse = SAM2Segmenter(checkpoint, "cpu", points_per_side=4, dtype="bf16")
    frame = coins()
    coarse.propose(frame)
    encodings.clear()
    assert_same_vectors(exact.embed_frame(frame, discs()), expected)
    assert encodings == [1]
    lower = SAM2Embedder(checkpoint, device="cpu", pooling="frame", dtype="bf16")
    assert not same_vectors(lower.embed_frame(frame, discs()), expected)
    assert encodings == [1], "of the same precision they are"


def test_features_go_with_their_frame_and_are_never_part_of_it(
    both: tuple[SAM2Segmenter, SAM2Embedder],
) -> None:
    segmenter, _ = both
    frame = coins()
    size = len(pickle.dumps(frame))
    masks = segmenter.propose(frame)
    features = weakref.ref(segmenter.encoder(frame))
    prepared = weakref.ref(segmenter.model._prepare(segmenter.encoder(frame)))
    assert len(pickle.dumps(frame)) == size
    assert len(pickle.dumps(masks)) < size
    assert features() is not None
    assert prepared() is not None
    del frame
    gc.collect()
    assert features() is None
    assert prepared() is None


def test_frames_encoded_together_are_all_known(
    both: tuple[SAM2Segmenter, SAM2Embedder], encodings: list[int]
) -> None:
    segmenter, embedder = both
    frames = [coins(5 * number) for number in range(FRAMES_KEPT)]
    segmenter.encoder.encode_together(frames)
    assert encodings == [FRAMES_KEPT]
    for frame in frames:
        embedder.embed_frame(frame, discs())
    assert encodings == [FRAMES_KEPT]


def test_threads_with_their_own_frames_get_their_own_vectors(
    both: tuple[SAM2Segmenter, SAM2Embedder],
) -> None:
    segmenter, embedder = both
    expected = [embedder.embed_frame(coins(10 * number), discs()) for number in range(3)]

    def ask(number: int) -> Any:
        frame = coins(10 * number)
        segmenter.segment_points(frame, [(40, 50)])
        return embedder.embed_frame(frame, discs())

    with ThreadPoolExecutor(3) as pool:
        for number, vectors in zip([0, 1, 2] * 2, pool.map(ask, [0, 1, 2] * 2), strict=True):
            assert_same_vectors(vectors, expected[number])
