"""Settings: which place wins, and what a user reads when a value is wrong."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from sam_detect.config import (
    ENVIRONMENT_PREFIX,
    Settings,
    home_dir,
    known_settings,
    load_settings,
    variable_of,
)
from sam_detect.errors import ConfigError

SECRET = "sk-very-secret-0123456789"


def write_config(text: str) -> Path:
    home = home_dir()
    home.mkdir(parents=True, exist_ok=True)
    path = home / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def value_of(settings: Settings, name: str) -> Any:
    """The value of a setting, or of an option of a part."""
    known = name in Settings.model_fields
    return getattr(settings, name) if known else settings.option(name)


def error_of(**given: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(given)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


# Precedence


def test_without_anything_the_defaults_hold() -> None:
    settings = load_settings()
    assert settings == Settings()
    assert (settings.library, settings.option("top_k"), settings.option("threshold")) == (
        "default", 5, "auto",
    )  # fmt: skip
    assert settings.color_order == "bgr"
    assert settings.option("sigma") is None
    assert not settings.options


def test_each_place_wins_over_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    write_config("top_k = 3\noccupancy = 0.3\nlibrary = 'file'\n")
    assert load_settings().option("top_k") == 3
    monkeypatch.setenv("SAM_DETECT_TOP_K", "7")
    monkeypatch.setenv("SAM_DETECT_OCCUPANCY", "0.4")
    settings = load_settings({"top_k": 9})
    assert (settings.option("top_k"), settings.occupancy, settings.library) == (9, 0.4, "file")
    assert load_settings({"library": "call"}).library == "call"


def test_a_call_that_says_none_does_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM_DETECT_TOP_K", "7")
    assert load_settings({"top_k": None}).option("top_k") == 7


def test_an_empty_variable_does_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM_DETECT_TOP_K", "")
    monkeypatch.setenv("QDRANT_URL", "")
    assert load_settings() == Settings()


def test_a_call_may_ask_for_a_value_that_is_false(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM_DETECT_MIN_AREA", "50")
    assert load_settings({"min_area": 0}).option("min_area") == 0


def test_an_environment_given_replaces_the_processes_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM_DETECT_TOP_K", "7")
    assert load_settings(environment={}).option("top_k") == 5
    assert load_settings(environment={"SAM_DETECT_TOP_K": "8"}).option("top_k") == 8


@pytest.mark.parametrize("name", sorted(known_settings()))
def test_every_setting_is_read_from_its_variable(name: str) -> None:
    values: dict[str, Any] = {
        "min_area": 11, "max_area": 12, "max_proposals": 13, "sigma": 1.5, "min_fade": 0.5,
        "max_distance": 15.5, "decay": 0.25, "occupancy": 0.5, "crop_side": 99, "top_k": 17,
        "tile": 640, "threshold": 0.75, "color_order": "rgb", "device": "cpu",
        "max_image_pixels": 18, "lock_timeout_s": 1.25, "qdrant_timeout_s": 7,
        "embedding_cache_size": 19, "qdrant_batch_size": 20,
        "kept_vectors_mb": 30, "similarity_threshold": 0.4,
        "offline": True,
        "points_per_side": 21, "prompts": "blobs", "similar_regions": "off", "forest": "off",
        "negatives": "margin", "shape_prior": 0.5, "outlines": "vote",
        "playlist_hosts": "any",
        "pooling": "frame", "text_weight": 0.75, "sigma_per_diameter": 0.5,
        "frame_rate": 12.5, "stream_timeout_s": 3.5, "stream_retries": 22,
        "scale": 0.5, "box_nms_thresh": 0.6, "compile": True, "crop_n_layers": 1, "dtype": "bf16",
        "pred_iou_thresh": 0.65, "stability_score_thresh": 0.9, "occupancies": (0.2, 0.4),
    }  # fmt: skip
    value = values.get(name, "a-name")
    variable = variable_of(name, known_settings()[name])
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    settings = load_settings(environment={variable: text})
    listed = name in ("text_labels", "text_templates", "text_none")
    assert value_of(settings, name) == ((value,) if listed else value)
    if name in Settings.model_fields:
        assert settings.model_copy(update={name: getattr(Settings(), name)}) == Settings()
    else:
        assert list(settings.options) == [name]
        assert not settings.asked, "the environment serves many runs"


def test_a_qdrant_server_is_read_from_qdrants_own_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_config("qdrant_url = 'http://from-file:6333'\n")
    monkeypatch.setenv("QDRANT_URL", "http://from-environment:6333")
    monkeypatch.setenv("QDRANT_API_KEY", SECRET)
    settings = load_settings()
    assert settings.option("qdrant_url") == "http://from-environment:6333"
    assert settings.option("qdrant_api_key") == SECRET
    assert load_settings({"qdrant_url": "http://call:1"}).option("qdrant_url") == "http://call:1"


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().library = "other"  # type: ignore[misc]


def test_the_home_folder_is_where_it_is_asked_to_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "state"))
    assert home_dir() == tmp_path / "state"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SAM_DETECT_HOME", "~/mine")
    assert home_dir() == tmp_path / "mine"
    monkeypatch.setenv("SAM_DETECT_HOME", "")
    assert home_dir().name == "sam-detect"


# What is wrong, in one line

BAD: list[tuple[str, Any]] = [
    ("library", ""), ("min_area", -1), ("max_area", -1), ("min_area", 1.5), ("max_proposals", 0),
    ("sigma", 0.0), ("sigma", -3.0), ("sigma", "wide"), ("min_fade", -0.1), ("min_fade", 1.1),
    ("max_distance", 0.0), ("decay", 0.0), ("decay", -1.0), ("occupancy", 0.01),
    ("occupancy", 0.81), ("crop_side", 15), ("crop_side", 1025), ("crop_side", "large"),
    ("top_k", 0), ("top_k", 1001), ("top_k", "five"), ("top_k", 2.5), ("threshold", -0.1),
    ("threshold", 1.5), ("threshold", "high"), ("color_order", "hsv"), ("device", "tpu"),
    ("points_per_side", 257), ("points_per_side", "many"), ("points_per_side", 2.5),
    ("pooling", "max"), ("max_image_pixels", 0), ("lock_timeout_s", -1.0), ("qdrant_timeout_s", 0),
    ("frame_rate", 0.0), ("stream_timeout_s", 0.0), ("stream_retries", -1),
]  # fmt: skip


def as_toml(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_named_with_its_setting_wherever_it_comes_from(
    name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = error_of(**{name: value})
    assert name in message
    assert repr(value) in message

    path = write_config(f"{name} = {as_toml(value)}\n")
    message = error_of()
    assert name in message
    assert repr(value) in message
    assert str(path) in message

    path.unlink()
    if value != "":
        monkeypatch.setenv(ENVIRONMENT_PREFIX + name.upper(), str(value))
        message = error_of()
        assert name in message
        assert str(value) in message
        assert "environment" in message


FLOATS = ["sigma", "min_fade", "max_distance", "decay", "occupancy", "threshold", "lock_timeout_s",
          "frame_rate", "stream_timeout_s"]  # fmt: skip


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("name", [*FLOATS, "top_k", "crop_side", "min_area"])
def test_nan_and_infinity_are_no_values(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = error_of(**{name: float(text)})
    assert name in message
    assert text in message
    path = write_config(f"{name} = {text}\n")
    assert str(path) in error_of()
    path.unlink()
    monkeypatch.setenv(ENVIRONMENT_PREFIX + name.upper(), text)
    message = error_of()
    assert name in message
    assert "environment" in message


def test_a_good_call_hides_a_bad_value_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM_DETECT_TOP_K", "many")
    assert load_settings({"top_k": 3}).option("top_k") == 3


def test_an_unknown_setting_is_named_with_those_there_are() -> None:
    message = error_of(top_q=3)
    assert "'top_q'" in message
    assert "top_k" in message
    path = write_config("[fade]\nsigma = 3\nfad = 4\n")
    message = error_of()
    assert "fade" in message
    assert str(path) in message
    write_config("colour = 'red'\n")
    message = error_of()
    assert "'colour'" in message
    assert str(path) in message


def test_an_unknown_name_of_two_lines_is_still_one_line() -> None:
    write_config('"two\\nlines" = 1\n')
    assert "two" in error_of()


@pytest.mark.parametrize(
    "text",
    ["top_k = \n", "top_k 3", "top_k = 3\ntop_k = 4", "[", "'", "library = 'a\nb'"],
    ids=repr,
)
def test_a_broken_settings_file_is_named(text: str) -> None:
    path = write_config(text)
    message = error_of()
    assert str(path) in message
    assert "cannot be read" in message


def test_a_settings_file_that_is_no_text_or_no_file_is_named() -> None:
    path = write_config("")
    path.write_bytes(b"top_k = \xff\xfe")
    assert str(path) in error_of()
    path.unlink()
    path.mkdir()
    assert str(path) in error_of()


def test_an_empty_settings_file_says_nothing() -> None:
    write_config("# nothing\n")
    assert load_settings() == Settings()


# The key


def test_the_api_key_is_not_shown() -> None:
    settings = load_settings({"qdrant_api_key": SECRET, "qdrant_url": "http://here:6333"})
    assert settings.option("qdrant_api_key") == SECRET
    for text in (repr(settings), str(settings), f"{settings}", f"{settings!r}"):
        assert SECRET not in text
        assert "http://here:6333" not in text, "it may hold a password"


def test_the_api_key_is_not_shown_when_another_value_is_wrong(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", SECRET)
    with caplog.at_level(logging.DEBUG), pytest.raises(ConfigError) as caught:
        load_settings({"top_k": 0})
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None, "pydantic's own error shows every input"
    assert SECRET not in caplog.text


@pytest.mark.parametrize("value", [5550123, ["sk-5550123"], {"key": "sk-5550123"}], ids=repr)
def test_the_api_key_is_not_shown_when_it_is_itself_wrong(value: Any) -> None:
    message = error_of(qdrant_api_key=value)
    assert "qdrant_api_key" in message
    assert "5550123" not in message


def test_the_api_key_is_not_shown_when_the_file_is_broken_at_it() -> None:
    write_config(f"qdrant_api_key = {SECRET}\n")
    assert SECRET not in error_of()
    write_config(f"qdrant_key = '{SECRET}'\n")
    assert SECRET not in error_of()
