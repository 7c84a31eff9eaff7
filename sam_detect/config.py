"""Every setting, once: its default, its limits and its help text.

The command line makes its options from :class:`Settings`, and
:class:`~sam_detect.detector.SAMDetect` takes its defaults from it. A value comes from the first
place that names it: the call or the command line, the environment (``SAM_DETECT_TOP_K=3``),
``config.toml`` in :func:`home_dir`, the default below.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sam_detect.errors import ConfigError, one_line

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_CROP_SIDE = 1024
ENVIRONMENT_PREFIX = "SAM_DETECT_"
MAX_FILE_BYTES = 256 << 10
MAX_DOTS = 200
"""Dots in a line of ``config.toml``: the time to read a dotted key grows with their square."""
SECRET = ("qdrant_api_key", "qdrant_url")
"""Settings that may hold a password: no message shows their value."""
MAX_SHOWN = 200
QDRANT_VARIABLES = {"qdrant_url": "QDRANT_URL", "qdrant_api_key": "QDRANT_API_KEY"}

Threshold = Literal["auto"] | Annotated[float, Field(ge=0, le=1)]
PointsPerSide = Literal["auto"] | Annotated[int, Field(ge=1, le=256)]
EXPECTED = {
    "threshold": "'auto' or a number from 0 to 1",
    "points_per_side": "'auto' or a whole number from 1 to 256",
}
"""What a setting of several types must be, which no single message of pydantic's says."""


def _split_at(separator: str) -> BeforeValidator:
    """Takes a list as one text, too: how the environment and the command line give it."""

    def split(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return [part.strip() for part in value.split(separator) if part.strip()]

    return BeforeValidator(split)


Text = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Text, ...], Field(min_length=1), _split_at(",")]
Sentences = Annotated[tuple[Text, ...], Field(min_length=1), _split_at("|")]


class Settings(BaseModel):
    """All settings. ``None`` means: not asked for, so the library's recipe or the part decides."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    library: str = Field("default", min_length=1, description="Name of the library of examples.")
    store: str | None = Field(
        None,
        description="Where examples are kept: qdrant (embedded, or a server by URL) or memory.",
    )
    qdrant_url: str | None = Field(None, description="URL of a Qdrant server, instead of embedded.")
    qdrant_api_key: str | None = Field(None, description="Key for the Qdrant server.", repr=False)
    qdrant_batch_size: int = Field(
        32, ge=1, le=10_000, description="Examples written to (or read from) Qdrant at once."
    )
    segmenter: str = Field(
        "auto",
        description="What proposes the masks; auto: sam2 where its model is here, else naive.",
    )
    sam_model: str | None = Field(
        None,
        min_length=1,
        description="The SAM 2 model, by default base: a size, Meta's name, or a checkpoint.",
    )
    prompts: Literal["grid", "adaptive", "blobs"] = Field(
        "grid",
        description="Where SAM 2 is asked: at all points of a grid; at those where no mask is yet "
        "(adaptive); or at bright and dark blobs.",
    )
    points_per_side: PointsPerSide | None = Field(
        None,
        description="Points along a side of SAM 2's grid, 1-256, by default 32; auto: as many as "
        "the library's smallest example needs.",
    )
    min_area: int = Field(0, ge=0, description="Smallest mask (0: as the segmenter chooses).")
    max_area: int = Field(0, ge=0, description="Largest mask (0: no limit).")
    max_proposals: int = Field(1000, ge=1, description="Most masks proposed for one image.")
    embedder: str = Field(
        "auto",
        description="What turns an object into a vector; auto: what the library was made with, in "
        "a new one clip where its model is here, else appearance.",
    )
    clip_model: str | None = Field(
        None,
        min_length=1,
        description="The CLIP model, by default base: open_clip's MODEL/TAG, a Hugging Face id, or "
        "a folder.",
    )
    pooling: Literal["crop", "frame"] | None = Field(
        None,
        description="What the embedder sam2 encodes: each crop (by default), or the whole picture "
        "once, which is faster.",
    )
    embedding_cache_size: int = Field(
        0, ge=0, description="Vectors to keep in memory for what is seen again (0: none)."
    )
    fade: str | None = Field(
        None,
        description="How what is around an object fades; by default as in the library, in a new "
        "one as suits the embedder. PKG.MOD:CLASS is a class of your own.",
    )
    sigma: float | None = Field(
        None, ge=0.01, le=10_000, description="Width of the gaussian (or blur) fade."
    )
    min_fade: float | None = Field(
        None, ge=0, le=1, description="Least weight of what is far away."
    )
    max_distance: float | None = Field(
        None, ge=0.01, le=100_000, description="Distance from the object where the fade ends."
    )
    decay: float | None = Field(
        None, ge=1e-6, le=1000, description="Rate of the exponential fade per pixel."
    )
    occupancy: float | None = Field(
        None,
        ge=0.05,
        le=0.8,
        description="Share of the crop that the object takes; by default 0.2.",
    )
    crop_side: int | None = Field(
        None, ge=16, le=MAX_CROP_SIDE, description="Longest side of the kept crops; by default 256."
    )
    labeller: str = Field(
        "knn",
        description="What names an object: its nearest examples (knn), the "
        "mean of each label's (prototype), or names that a CLIP model compares it with (text).",
    )
    text_labels: Names | None = Field(None, description="Names that the labeller text looks for.")
    text_templates: Sentences | None = Field(
        None,
        description="Sentences in which the labeller text puts a name for {}: 'a photo of a {}.'",
    )
    text_weight: float | None = Field(
        None, ge=0, le=1, description="How much texts count beside examples (1: texts only)."
    )
    top_k: int = Field(5, ge=1, le=1000, description="Number of nearest examples that vote.")
    threshold: Threshold = Field(
        "auto", description="Least confidence for a label; auto: as the library's examples tell."
    )
    color_order: Literal["bgr", "rgb"] = Field("bgr", description="Channel order of arrays.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where models run.")
    offline: bool = Field(False, description="Never use the network to get a model.")
    max_image_pixels: int = Field(
        200_000_000, ge=1, description="Larger pictures are refused before decoding."
    )
    frame_rate: float = Field(
        25.0, gt=0, description="Frames a second of a folder of pictures that is taken as a video."
    )
    stream_timeout_s: float = Field(
        10.0, gt=0, description="How long to wait for a stream's next part (in seconds)."
    )
    stream_retries: int = Field(
        8, ge=0, description="Tries to get back a stream or camera that broke off."
    )
    playlist_hosts: Literal["own", "any"] = Field(
        "own", description="Where a playlist (HLS, DASH) may lead: to its own host, or to any."
    )
    lock_timeout_s: float = Field(
        20.0, ge=0, description="How long to wait for another process to let go of a library."
    )


def home_dir() -> Path:
    """The folder of all state: ``SAM_DETECT_HOME``, or the user's data folder."""
    given = os.environ.get("SAM_DETECT_HOME")
    if given:
        return Path(given).expanduser()
    from platformdirs import user_data_path

    return user_data_path("sam-detect", appauthor=False)


def load_settings(
    overrides: Mapping[str, Any] | None = None, *, environment: Mapping[str, str] | None = None
) -> Settings:
    """Settings from the call, the environment, ``config.toml`` and the defaults, in that order.

    Args:
        overrides: values asked for; those that are None are not.
        environment: replaces ``os.environ``.

    Raises:
        ConfigError: a name nobody knows or a value out of its range, naming where it came from.
    """
    variables = os.environ if environment is None else environment
    layers = [
        (str(home_dir() / "config.toml"), _from_file(home_dir() / "config.toml")),
        ("the environment", _from_environment(variables)),
        ("", {name: value for name, value in (overrides or {}).items() if value is not None}),
    ]
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for place, values in layers:
        merged.update(values)
        origin.update(dict.fromkeys(values, place))
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise ConfigError(_explain(error, origin)) from None


def _from_file(path: Path) -> dict[str, Any]:
    cannot = f"the settings file {path} cannot be read"
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe or a device may never end
            raise ConfigError(f"{cannot}: it is not a file; move it away")
        if found.st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{cannot}: it is longer than {MAX_FILE_BYTES >> 10} KiB")
        text = path.read_text(encoding="utf-8")
        if any(line.count(".") > MAX_DOTS for line in text.splitlines()):
            raise ConfigError(f"{cannot}: a line of it has more than {MAX_DOTS} dots")
        values: dict[str, Any] = tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(f"{cannot}: {error.strerror or error}") from error
    except RecursionError as error:
        raise ConfigError(f"{cannot}: its values are nested too deeply") from error
    except ValueError as error:  # of TOML, of UTF-8, of a number of thousands of digits
        raise ConfigError(f"{cannot}: {one_line(error)[:MAX_SHOWN]}") from error
    for name, value in values.items():
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, (str, int, float)):
                raise ConfigError(
                    f"the setting {name[:MAX_SHOWN]!r} in {path} must be a text, a number, true or "
                    f"false, or a list of texts, got a {type(each).__name__}"
                )
    return values


def _from_environment(variables: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in Settings.model_fields:
        value = variables.get(QDRANT_VARIABLES.get(name, ENVIRONMENT_PREFIX + name.upper()))
        if value:
            found[name] = value
    return found


def _explain(error: ValidationError, origin: Mapping[str, str]) -> str:
    """One line for the first thing that is wrong: name, value, expectation, place."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    place = f" (in {origin[name]})" if origin.get(name) else ""
    if first["type"] == "extra_forbidden":
        known = ", ".join(Settings.model_fields)
        shown = repr(name if len(name) <= MAX_SHOWN else f"{name[:MAX_SHOWN]}...")
        return f"there is no setting {shown}{place}; the settings are {known}"
    given = repr(first["input"])
    given = given if len(given) <= MAX_SHOWN else f"{given[:MAX_SHOWN]}..."
    if name in EXPECTED:
        return f"{name} must be {EXPECTED[name]}, got {given}{place}"
    message = first["msg"][0].lower() + first["msg"][1:]
    got = "" if name in SECRET else f", got {given}"
    return f"{name}: {message}{got}{place}"
