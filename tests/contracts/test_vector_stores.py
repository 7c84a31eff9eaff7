"""What every vector store promises, asked of every registered one.

A store that is registered under a new name needs a builder in ``BUILDERS``; the Qdrant store has
three: the embedded engine, the server's semantics in the client's local mode, and a real server.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sam_detect import registry
from sam_detect.errors import StoreError
from sam_detect.interfaces import VectorStore
from sam_detect.types import Hit, Point
from sam_detect.vector_store import MemoryVectorStore, QdrantVectorStore
from sam_detect.vector_store._server import ServerStore

LOCAL_MODE = "ignore:Local mode performs exact:UserWarning"

pytestmark = pytest.mark.filterwarnings(LOCAL_MODE)


# -- how each store is made --------------------------------------------------------------------


def _memory(tmp_path: Path, request: pytest.FixtureRequest) -> VectorStore:
    return MemoryVectorStore()


def _embedded(tmp_path: Path, request: pytest.FixtureRequest) -> VectorStore:
    return QdrantVectorStore(path=tmp_path, collection_name=_name(), lock_timeout_s=5, batch_size=7)


def _local_mode(tmp_path: Path, request: pytest.FixtureRequest) -> VectorStore:
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    return ServerStore(lambda: client, _name(), location="the local mode", batch_size=7)


def _server(tmp_path: Path, request: pytest.FixtureRequest) -> VectorStore:
    url = request.getfixturevalue("server_url")
    return QdrantVectorStore(url=url, collection_name=_name(), batch_size=7)


def _name() -> str:
    return f"contract-{uuid.uuid4().hex[:8]}"


BUILDERS: dict[str, dict[str, Callable[[Path, pytest.FixtureRequest], VectorStore]]] = {
    "memory": {"memory": _memory},
    "qdrant": {"embedded": _embedded, "local-mode": _local_mode, "server": _server},
}
MARKS = {"server": [pytest.mark.docker]}
VARIANTS = [
    pytest.param((name, variant), id=variant, marks=MARKS.get(variant, []))
    for name in registry.names("store")
    for variant in BUILDERS.get(name, {"missing": None})
]


@pytest.fixture(params=VARIANTS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    name, variant = request.param
    assert name in BUILDERS, f"the store '{name}' is registered: give it a builder in {__file__}"
    built = BUILDERS[name][variant](tmp_path, request)
    yield built
    built.destroy()


def test_every_registered_store_has_a_builder() -> None:
    missing = set(registry.names("store")) - set(BUILDERS)
    assert not missing, f"registered without a builder in {__file__}: {sorted(missing)}"


# -- the slow, obvious reference ---------------------------------------------------------------


def reference_search(
    points: dict[str, npt.NDArray[np.float32]], query: npt.NDArray[np.float32], limit: int
) -> list[tuple[str, float]]:
    """Cosine similarity in float64, written out, one pair at a time."""
    scored = []
    for point_id, vector in points.items():
        a, b = vector.astype(np.float64), query.astype(np.float64)
        length = np.sqrt((a * a).sum()) * np.sqrt((b * b).sum())
        scored.append((point_id, float((a * b).sum() / length) if length > 0 else 0.0))
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:limit]


def agree(hits: list[Hit], expected: list[tuple[str, float]], tolerance: float = 2e-5) -> None:
    """Same similarities; the same ids too, except among those that rounding cannot tell apart."""
    assert len(hits) == len(expected)
    assert [h.similarity for h in hits] == pytest.approx([s for _, s in expected], abs=tolerance)
    for hit, (point_id, similarity) in zip(hits, expected, strict=True):
        near = [i for i, s in expected if abs(s - similarity) <= tolerance]
        if similarity - expected[-1][1] > tolerance:
            assert hit.id in near
        if near == [point_id] and similarity - expected[-1][1] > tolerance:
            assert hit.id == point_id


def point_id(number: int) -> str:
    """Ids whose order is that of the numbers."""
    return str(uuid.UUID(int=number))


def unit(*values: float) -> npt.NDArray[np.float32]:
    vector = np.array(values, np.float64)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def random_units(count: int, dimension: int, seed: int = 0) -> npt.NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_points(count: int, dimension: int = 8, seed: int = 0) -> list[Point]:
    vectors = random_units(count, dimension, seed)
    return [
        Point(point_id(n), vectors[n], {"label": f"label {n % 3}", "n": n, "crop": "x" * 100})
        for n in range(count)
    ]


# -- points ------------------------------------------------------------------------------------


def test_points_come_back_as_they_were_put(store: VectorStore) -> None:
    payload = {
        "label": "Ø 東京 \u2028 'quoted' \"twice\" \\",
        "": "empty name",
        "nested": {"a": [1, 2.5, None, True, {"b": []}], "dotted.name": {}},
        "large": 2**53 + 1,
        "small": -1e-300,
        "none": None,
        "picture": "A" * 30_000,
    }
    points = [
        Point(p.id, p.vector, {**payload, "n": n}) for n, p in enumerate(make_points(20, 256))
    ]
    store.upsert(points)
    back = list(store.scan(with_vectors=True))
    assert [p.id for p in back] == [p.id for p in points]
    assert [p.payload for p in back] == [p.payload for p in points]
    for put, got in zip(points, back, strict=True):
        assert got.vector is not None
        assert got.vector.dtype == np.float32
        assert got.vector.shape == (256,)
        np.testing.assert_allclose(got.vector, put.vector, atol=1e-6)


def test_vectors_come_back_at_length_one(store: VectorStore) -> None:
    store.upsert([Point(point_id(1), np.array([3e20, 4e20], np.float32), {})])
    (back,) = store.scan(with_vectors=True)
    np.testing.assert_allclose(back.vector, [0.6, 0.8], atol=1e-6)


def test_upsert_replaces_vector_and_whole_payload(store: VectorStore) -> None:
    store.upsert([Point(point_id(n), unit(1, 0), {"old": n, "both": 1}) for n in range(3)])
    store.upsert([Point(point_id(1), unit(0, 1), {"new": 9, "both": 2})])
    assert store.count() == 3
    (back,) = store.scan([point_id(1)], with_vectors=True)
    assert back.payload == {"new": 9, "both": 2}
    np.testing.assert_allclose(back.vector, [0, 1], atol=1e-6)
    assert store.search(np.array([[0, 1]], np.float32), 1)[0][0].id == point_id(1)


def test_the_last_of_equal_ids_in_one_upsert_stays(store: VectorStore) -> None:
    store.upsert([Point(point_id(1), unit(1, n), {"n": n}) for n in range(20)])
    assert [p.payload for p in store.scan()] == [{"n": 19}]
    assert store.count() == 1


def test_delete_removes_only_what_was_named(store: VectorStore) -> None:
    store.upsert(make_points(30))
    store.delete([point_id(3), point_id(7), point_id(999), "not a uuid", point_id(3)])
    left = [n for n in range(30) if n not in {3, 7}]
    assert [p.id for p in store.scan()] == [point_id(n) for n in left]
    assert store.count() == 28
    assert point_id(3) not in {h.id for h in store.search(random_units(1, 8), 100)[0]}
    store.delete([point_id(n) for n in left])
    assert store.count() == 0
    assert store.search(random_units(1, 8), 3) == [[]]
    store.upsert(make_points(2))
    assert store.count() == 2


def test_nothing_is_shared_with_the_caller(store: VectorStore) -> None:
    vector, payload = unit(1, 0), {"list": [1, 2]}
    store.upsert([Point(point_id(1), vector, payload)])
    vector[:] = 0
    payload["list"].append(3)
    for _ in range(2):
        (back,) = store.scan(with_vectors=True)
        assert back.payload == {"list": [1, 2]}
        assert back.vector is not None
        np.testing.assert_allclose(back.vector, [1, 0], atol=1e-6)
        back.payload["list"].append(4)
        back.vector[:] = 7
        (hit,) = store.search(np.array([[1, 0]], np.float32), 1, fields=["list"])[0]
        hit.payload["list"].append(5)


def test_an_empty_upsert_and_delete_do_nothing(store: VectorStore) -> None:
    store.upsert([])
    store.delete([])
    store.delete([point_id(1)])
    assert store.count() == 0
    assert store.read_manifest() is None


# -- what is refused ---------------------------------------------------------------------------

GOOD = Point(point_id(50), unit(1, 0, 0), {})
BAD_POINTS = {
    "NaN": Point(point_id(51), np.array([1, np.nan, 0], np.float32), {}),
    "infinite": Point(point_id(51), np.array([1, np.inf, 0], np.float32), {}),
    "float64 beyond float32": Point(point_id(51), np.array([1, 1e300, 0]), {}),  # type: ignore[arg-type]
    "two axes": Point(point_id(51), np.ones((1, 3), np.float32), {}),
    "empty": Point(point_id(51), np.ones(0, np.float32), {}),
    "no vector": Point(point_id(51), None, {}),
    "text": Point(point_id(51), np.array(["a", "b", "c"]), {}),  # type: ignore[arg-type]
    "another length": Point(point_id(51), unit(1, 0), {}),
    "upper-case id": Point("ABCDEF00-0000-0000-0000-000000000000", unit(1, 0, 0), {}),
    "id without hyphens": Point(uuid.UUID(int=5).hex, unit(1, 0, 0), {}),
    "no id": Point("", unit(1, 0, 0), {}),
    "bytes in the payload": Point(point_id(51), unit(1, 0, 0), {"a": b"x"}),
    "NaN in the payload": Point(point_id(51), unit(1, 0, 0), {"a": float("nan")}),
    "a number as name": Point(point_id(51), unit(1, 0, 0), {1: "x"}),  # type: ignore[dict-item]
    "half a character": Point(point_id(51), unit(1, 0, 0), {"source": "caf\udce9.png"}),
}


@pytest.mark.parametrize("bad", BAD_POINTS.values(), ids=BAD_POINTS)
@pytest.mark.parametrize("filled", [False, True], ids=["empty", "filled"])
def test_a_bad_point_is_refused_before_anything_is_written(
    store: VectorStore, bad: Point, filled: bool
) -> None:
    if filled:
        store.upsert([Point(point_id(1), unit(1, 1, 1), {"a": 1})])
    with pytest.raises(StoreError) as caught:
        store.upsert([GOOD] * 20 + [bad])
    assert "\n" not in str(caught.value)
    assert [p.id for p in store.scan()] == [point_id(1)] * filled


def test_another_length_says_which_is_expected(store: VectorStore) -> None:
    store.upsert([Point(point_id(1), unit(1, 2, 3), {})])
    with pytest.raises(StoreError, match="length 3"):
        store.upsert([Point(point_id(2), unit(1, 2, 3, 4), {})])
    with pytest.raises(StoreError, match="length 3"):
        store.search(random_units(1, 4), 1)


@pytest.mark.parametrize(
    "queries",
    [np.ones(3, np.float32), np.ones((1, 1, 3), np.float32), np.full((1, 3), np.nan, np.float32)],
    ids=["one axis", "three axes", "NaN"],
)
def test_bad_queries_are_refused(store: VectorStore, queries: npt.NDArray[np.float32]) -> None:
    store.upsert([GOOD])
    with pytest.raises(StoreError):
        store.search(queries, 1)
    with pytest.raises(StoreError):
        store.search(np.ones((1, 3), np.float32), 0)


# -- search ------------------------------------------------------------------------------------


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    count=st.integers(1, 40),
    dimension=st.integers(1, 9),
    queries=st.integers(1, 10),
    limit=st.integers(1, 50),
    duplicates=st.integers(0, 5),
    seed=st.integers(0, 2**31),
)
def test_search_agrees_with_the_reference(
    store: VectorStore,
    count: int,
    dimension: int,
    queries: int,
    limit: int,
    duplicates: int,
    seed: int,
) -> None:
    store.destroy()
    rng = np.random.default_rng(seed)
    # Few distinct values: many exact ties, zero vectors among them.
    vectors = rng.integers(-2, 3, size=(count, dimension)).astype(np.float32)
    vectors[:duplicates] = vectors[0]
    ids = [str(uuid.UUID(bytes=rng.bytes(16))) for _ in range(count)]
    asked = rng.normal(size=(queries, dimension)).astype(np.float32)
    store.upsert([Point(i, v, {}) for i, v in zip(ids, vectors, strict=True)])
    stored = dict(zip(ids, vectors, strict=True))
    for query, hits in zip(asked, store.search(asked, limit), strict=True):
        agree(hits, reference_search(stored, query, limit))
        order = [(-hit.similarity, hit.id) for hit in hits]
        assert order == sorted(order)


def test_ties_come_by_id_also_at_the_limit(store: VectorStore) -> None:
    numbers = [17, 3, 99, 42, 8, 61, 25, 70, 33, 54]
    same = [Point(point_id(n), unit(1, 2, 3), {}) for n in numbers * 5]
    spread = [Point(point_id(1000 + n), unit(-1, n, 0), {}) for n in range(50)]
    more = [Point(point_id(n), unit(1, 2, 3), {}) for n in range(200, 260)]
    store.upsert([*spread, *same, *more])
    expected = [point_id(n) for n in sorted({*numbers, *range(200, 260)})]
    for limit in (1, 3, 9, 10, 11, 69, 70):
        for hits in store.search(np.tile(unit(1, 2, 3), (3, 1)), limit):
            assert [hit.id for hit in hits] == expected[:limit]
            assert all(hit.similarity == pytest.approx(1, abs=1e-6) for hit in hits)


def test_a_limit_beyond_the_count_gives_all(store: VectorStore) -> None:
    store.upsert(make_points(5))
    assert {hit.id for hit in store.search(random_units(1, 8), 1000)[0]} == {
        point_id(n) for n in range(5)
    }


def test_no_queries_give_no_rows(store: VectorStore) -> None:
    store.upsert(make_points(5))
    assert store.search(np.zeros((0, 8), np.float32), 3) == []


def test_similarities_span_minus_one_to_one(store: VectorStore) -> None:
    store.upsert([Point(point_id(n), v, {}) for n, v in enumerate([unit(1, 0), unit(-1, 0)])])
    (hits,) = store.search(np.array([[5, 0]], np.float32), 2)
    assert [hit.similarity for hit in hits] == pytest.approx([1, -1], abs=1e-6)


def test_search_brings_only_the_fields_asked_for(store: VectorStore) -> None:
    store.upsert([Point(point_id(1), unit(1, 0), {"label": "a", "n": 1, "a.b": 2, "a": {"b": 3}})])
    query = np.array([[1, 0]], np.float32)
    assert store.search(query, 1)[0][0].payload == {}
    assert store.search(query, 1, fields=["label", "absent"])[0][0].payload == {"label": "a"}
    assert store.search(query, 1, fields=["a.b"])[0][0].payload == {"a.b": 2}
    assert store.search(query, 1, fields=["a"])[0][0].payload == {"a": {"b": 3}}


def test_two_stores_answer_alike(store: VectorStore) -> None:
    other = MemoryVectorStore()
    points = make_points(400, 64, seed=3)
    store.upsert(points)
    other.upsert(points)
    queries = random_units(50, 64, seed=4)
    for mine, theirs in zip(
        store.search(queries, 10, fields=["label"]),
        other.search(queries, 10, fields=["label"]),
        strict=True,
    ):
        agree(mine, [(hit.id, hit.similarity) for hit in theirs], tolerance=1e-6)
        assert {h.id: h.payload for h in mine} == {h.id: h.payload for h in theirs}


# -- scan --------------------------------------------------------------------------------------


def test_scan_is_in_the_order_of_ids(store: VectorStore) -> None:
    rng = np.random.default_rng(1)
    ids = [str(uuid.UUID(bytes=rng.bytes(16))) for _ in range(600)]
    store.upsert([Point(i, unit(1, n), {"n": n}) for n, i in enumerate(ids)])
    back = list(store.scan(fields=["n"]))
    assert [p.id for p in back] == sorted(ids)
    assert all(p.vector is None and p.payload == {"n": ids.index(p.id)} for p in back)


def test_scan_of_ids_gives_those_that_exist_once(store: VectorStore) -> None:
    store.upsert(make_points(30))
    wanted = [point_id(9), point_id(2), point_id(77), "no uuid", "", point_id(2)]
    assert [p.id for p in store.scan(wanted)] == [point_id(2), point_id(9)]
    assert list(store.scan([])) == []
    assert [p.payload for p in store.scan([point_id(4)], fields=["n", "absent"])] == [{"n": 4}]
    assert [p.payload for p in store.scan([point_id(4)], fields=[])] == [{}]


def test_an_unfinished_scan_lets_go(store: VectorStore) -> None:
    store.upsert(make_points(600))
    scan = store.scan()
    assert next(scan).id == point_id(0)
    del scan
    store.upsert([Point(point_id(9999), random_units(1, 8)[0], {})])
    assert store.count() == 601


# -- manifest, sessions, replacing, removing ---------------------------------------------------


def test_the_manifest_comes_back_and_is_replaced_whole(store: VectorStore) -> None:
    assert store.read_manifest() is None
    first = {"recipe": {"fade": "gaussian", "n": 1, "none": None}, "generation": 2**40, "f": 0.1}
    store.write_manifest(first)
    assert store.read_manifest() == first
    store.upsert(make_points(3))
    assert store.read_manifest() == first
    store.write_manifest({"generation": 1})
    assert store.read_manifest() == {"generation": 1}
    assert store.count() == 3
    with pytest.raises(StoreError):
        store.write_manifest({"a": object()})
    assert store.read_manifest() == {"generation": 1}


def test_the_manifest_is_not_shared(store: VectorStore) -> None:
    manifest: dict[str, Any] = {"a": [1]}
    store.write_manifest(manifest)
    manifest["a"].append(2)
    found = store.read_manifest()
    assert found == {"a": [1]}
    found["a"].append(3)
    assert store.read_manifest() == {"a": [1]}


def test_points_without_manifest_have_none(store: VectorStore) -> None:
    store.upsert(make_points(3))
    assert store.read_manifest() is None


def test_sessions_nest(store: VectorStore) -> None:
    with store.session():
        with store.session():
            store.upsert(make_points(3))
        assert store.count() == 3
        store.write_manifest({"a": 1})
        with pytest.raises(RuntimeError), store.session():
            raise RuntimeError("the body failed")
        store.upsert(make_points(5))
    assert store.count() == 5
    assert store.read_manifest() == {"a": 1}


def test_threads_keep_their_sessions_apart(store: VectorStore) -> None:
    store.upsert([Point(point_id(0), unit(1, 0), {"n": 0})])

    def raise_by_one() -> None:
        for _ in range(5):
            with store.session():
                (point,) = store.scan([point_id(0)], with_vectors=True)
                store.upsert([Point(point.id, point.vector, {"n": point.payload["n"] + 1})])

    threads = [threading.Thread(target=raise_by_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [p.payload for p in store.scan()] == [{"n": 20}]


def test_replace_all_takes_another_length_and_reads_itself(store: VectorStore) -> None:
    store.upsert(make_points(40, 8))
    store.write_manifest({"v": 1})
    longer = (Point(p.id, unit(1, 2, 3), {"n": p.payload["n"]}) for p in store.scan())
    store.replace_all(longer, {"v": 2})
    assert store.read_manifest() == {"v": 2}
    assert [p.payload for p in store.scan()] == [{"n": n} for n in range(40)]
    assert len(store.search(random_units(1, 3), 5)[0]) == 5
    store.upsert([Point(point_id(100), unit(3, 2, 1), {})])
    assert store.count() == 41


def test_replace_all_with_nothing_empties(store: VectorStore) -> None:
    store.upsert(make_points(4, 8))
    store.replace_all([], {"v": 2})
    assert store.count() == 0
    assert store.read_manifest() == {"v": 2}
    assert list(store.scan()) == []
    assert store.search(random_units(1, 5), 2) == [[]]
    store.upsert(make_points(4, 5))
    assert store.count() == 4
    assert store.read_manifest() == {"v": 2}


def test_replace_all_that_fails_changes_nothing(store: VectorStore) -> None:
    store.upsert(make_points(20, 8))
    store.write_manifest({"v": 1})

    def broken() -> Iterator[Point]:
        yield from make_points(15, 3)
        raise RuntimeError("the embedder failed")

    with pytest.raises(RuntimeError, match="the embedder failed"):
        store.replace_all(broken(), {"v": 2})
    with pytest.raises(StoreError):
        store.replace_all([*make_points(15, 3), *make_points(1, 4)], {"v": 2})
    assert store.read_manifest() == {"v": 1}
    assert store.count() == 20
    assert [hit.id for hit in store.search(make_points(1, 8)[0].vector[None], 1)[0]] == [
        point_id(0)
    ]


def test_a_destroyed_store_is_empty_and_can_be_used_again(store: VectorStore) -> None:
    store.destroy()
    store.upsert(make_points(5, 8))
    store.write_manifest({"v": 1})
    with store.session():
        store.destroy()
        assert store.count() == 0
    assert store.read_manifest() is None
    assert list(store.scan()) == []
    assert store.search(random_units(1, 3), 2) == [[]]
    assert store.size_bytes() == 0
    store.upsert(make_points(2, 3))
    assert store.count() == 2


def test_an_empty_store_answers_everything(store: VectorStore) -> None:
    assert store.count() == 0
    assert store.read_manifest() is None
    assert store.search(random_units(2, 4), 3) == [[], []]
    assert list(store.scan()) == []
    assert list(store.scan([point_id(1)])) == []
    assert store.size_bytes() == 0
    with store.session():
        assert store.count() == 0


def test_size_grows_with_what_is_kept(store: VectorStore) -> None:
    points = [Point(p.id, p.vector, {"crop": "y" * 20_000}) for p in make_points(20, 8)]
    store.upsert(points)
    assert store.size_bytes() > 20 * 8 * 4
    assert isinstance(store.size_bytes(), int)


def test_location_is_for_people(store: VectorStore) -> None:
    assert store.location
    assert "\n" not in store.location
