"""Settings: which parts are used, their options, and what concerns all of them.

:class:`Settings` declares what concerns all parts; each part declares its own options
(:mod:`sam_detect.options`). A value comes from the first place that names it: the call or the
command line, the environment (``SAM_DETECT_TOP_K=3``), ``config.toml`` in :func:`home_dir`, the
default.

An option in the call that no part of the run has is an error. In the environment and in
``config.toml``, which serve many runs, an option counts for the runs whose parts have it.
"""

from __future__ import annotations

import functools
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    create_model,
)
from pydantic.fields import FieldInfo

from sam_detect.errors import ConfigError, one_line
from sam_detect.options import (
    ROOMS,
    annotation_of,
    can_be_loaded,
    fields,
    hint,
    installed,
    shown,
)
from sam_detect.registry import BUILT_IN

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_CROP_SIDE = 1024
ENVIRONMENT_PREFIX = "SAM_DETECT_"
HOME_VARIABLE = "SAM_DETECT_HOME"
MAX_FILE_BYTES = 256 << 10
MAX_DOTS = 200
"""Dots in a line of ``config.toml``: the time to read a dotted key grows with their square."""
MAX_SHOWN = 200
Chosen: TypeAlias = tuple[tuple[str, str], ...]
"""Room and name of parts."""


class Settings(BaseModel):
    """What concerns all parts, and the options of parts that were given.

    ``None`` means: not given, so the library's recipe or the part decides.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    library: str = Field(
        "default",
        min_length=1,
        description="Name of the library of examples.",
        json_schema_extra=shown("NAME", common=True),
    )
    store: str | None = Field(
        None,
        description="Where examples are kept: qdrant (embedded, or a server by URL) or memory.",
    )
    segmenter: str = Field(
        "auto",
        description="What proposes the masks; auto: sam2 where its model is here, else naive.",
        json_schema_extra=shown(common=True),
    )
    embedder: str = Field(
        "auto",
        description="What turns an object into a vector; auto: what the library was made with, in "
        "a new one clip where its model is here, else lite.",
        json_schema_extra=shown(common=True),
    )
    embedding_cache_size: int = Field(
        0, ge=0, description="Vectors to keep in memory for what is seen again (0: none)."
    )
    kept_vectors_mb: int = Field(
        0,
        ge=0,
        description="Megabytes of vectors that are kept on disk for the next run (0: none; fewshot "
        "keeps 1000).",
        json_schema_extra=shown("N"),
    )
    fade: str | None = Field(
        None,
        description="How what is around an object fades; by default as in the library, in a new "
        "one as suits the embedder.",
    )
    occupancy: float | None = Field(
        None,
        ge=0.05,
        le=0.8,
        description="Share of the crop that the object takes; by default 0.2.",
        json_schema_extra=shown("0.05-0.80"),
    )
    crop_side: int | None = Field(
        None,
        ge=16,
        le=MAX_CROP_SIDE,
        description="Longest side of the kept crops; by default 256.",
        json_schema_extra=shown("PIXELS"),
    )
    tile: int | None = Field(
        None,
        ge=64,
        description="Side of the windows in which a large picture is searched; by default as the "
        "smallest example needs.",
        json_schema_extra=shown("PIXELS"),
    )
    scale: Literal["auto"] | Annotated[float, Field(ge=0.02, le=16)] | None = Field(
        None,
        description="Work on the picture at this scale, such as 0.25 where its objects are four "
        "times as long as the examples; auto tries several, in up to six times the time.",
        json_schema_extra=shown(
            "auto|FACTOR", common=True, expected="'auto' or a number from 0.02 to 16"
        ),
    )
    labeller: str = Field(
        "knn",
        description="What names an object: its nearest examples (knn), the "
        "mean of each label's (prototype), or names that a CLIP model compares it with (text).",
    )
    outlines: Literal["best", "vote"] = Field(
        "best",
        description="Outline of an object: that of its best proposal, or what most of its "
        "proposals agree on.",
    )
    color_order: Literal["bgr", "rgb"] = Field(
        "bgr",
        description="Channel order of arrays.",
        json_schema_extra=shown(hidden=True),  # picture files carry their own
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where models run.", json_schema_extra=shown(common=True)
    )
    offline: bool = Field(False, description="Never use the network to get a model.")
    max_image_pixels: int = Field(
        450_000_000,
        ge=1,
        description="Larger pictures are refused before decoding, but for TIFFs whose tiles or "
        "strips are read one by one: of these, larger tiles.",
        json_schema_extra=shown("PIXELS"),
    )
    frame_rate: float = Field(
        25.0,
        gt=0,
        description="Frames a second of a folder of pictures that is taken as a video.",
        json_schema_extra=shown("N"),
    )
    stream_timeout_s: float = Field(
        10.0,
        gt=0,
        description="How long to wait for a stream's next part (in seconds).",
        json_schema_extra=shown("SECONDS"),
    )
    stream_retries: int = Field(
        8,
        ge=0,
        description="Tries to reconnect to a stream or camera that broke off.",
        json_schema_extra=shown("N"),
    )
    playlist_hosts: Literal["own", "any"] = Field(
        "own", description="Where a playlist (HLS, DASH) may lead: to its own host, or to any."
    )

    _options: dict[str, Any] = PrivateAttr(default_factory=dict)
    _asked: frozenset[str] = PrivateAttr(default=frozenset())

    @property
    def options(self) -> dict[str, Any]:
        """The options of parts that were given, by name, each valid."""
        return self._options

    @property
    def asked(self) -> frozenset[str]:
        """The options of parts that the call itself gives: one of its parts must have each."""
        return self._asked

    def option(self, name: str) -> Any:
        """The value of an option of some part: as given, else its default."""
        return self._options.get(name, fields()[name].default) if name in fields() else None

    @property
    def chosen(self) -> dict[str, str]:
        """Room to the name of its part, where one is named."""
        named = ((room, getattr(self, room)) for room in ROOMS)
        return {room: name for room, name in named if name not in (None, "auto")}


def home_dir() -> Path:
    """The folder of all state: ``SAM_DETECT_HOME``, or the user's data folder."""
    given = os.environ.get(HOME_VARIABLE)
    if given:
        return Path(given).expanduser()
    from platformdirs import user_data_path

    return user_data_path("sam-detect", appauthor=False)


def load_settings(
    overrides: Mapping[str, Any] | None = None, *, environment: Mapping[str, str] | None = None
) -> Settings:
    """Settings from the call, the environment, ``config.toml`` and the defaults, in that order.

    Args:
        overrides: values of the call; None is not given.
        environment: replaces ``os.environ``.

    Raises:
        ConfigError: an unknown name, or a value out of its range, naming where it came from.
    """
    layers, chosen = _layers(overrides or {}, os.environ if environment is None else environment)
    merged = {name: value for _, values in layers for name, value in values.items()}
    origin = {name: place for place, values in layers for name in values}
    if any(name not in known_settings(chosen) for name in layers[0][1]):
        # An option of a part that this run does not use?
        named = (each for each in _named(layers[0][1]) if can_be_loaded(*each))
        chosen = (*dict.fromkeys([*chosen, *named, *installed()]),)
    known = known_settings(chosen)
    try:
        checked = _model(chosen)(**merged)
    except ValidationError as error:
        raise ConfigError(explained(error, known, origin)) from None
    found = {name: getattr(checked, name) for name in merged}
    settings = Settings(
        **{name: found.pop(name) for name in merged if name in Settings.model_fields}
    )
    settings._options = found
    settings._asked = frozenset(found.keys() & layers[-1][1].keys())
    return settings


def known_settings(chosen: Chosen = ()) -> dict[str, FieldInfo]:
    """Every setting and every option: of the built-in parts, and of other parts by name."""
    return {**fields(chosen), **Settings.model_fields}


def chosen_parts(overrides: Mapping[str, Any]) -> Chosen:
    """Room and name of each part of another package that the call, the environment or
    ``config.toml`` names."""
    call = {name: value for name, value in overrides.items() if value is not None}
    environment = _from_environment(os.environ, Settings.model_fields)
    return _named({**_from_file(home_dir() / "config.toml"), **environment, **call})


def variable_of(name: str, info: FieldInfo) -> str:
    """The environment variable of a setting."""
    return hint(info, "variable") or ENVIRONMENT_PREFIX + name.upper()


@functools.lru_cache(maxsize=32)
def _model(chosen: Chosen) -> type[BaseModel]:
    """Settings and options in one model."""
    options: dict[str, Any] = {
        name: (annotation_of(info) | None, None)
        for name, info in fields(chosen).items()
        if name not in Settings.model_fields
    }
    return create_model("Settings", __base__=Settings, **options)


def _named(values: Mapping[str, Any]) -> Chosen:
    """The parts of other packages that some values name."""
    named = ((room, values.get(room)) for room in ROOMS)
    return tuple(
        (room, name)
        for room, name in named
        if isinstance(name, str) and name != "auto" and name not in BUILT_IN[room]
    )


def _layers(
    overrides: Mapping[str, Any], variables: Mapping[str, str]
) -> tuple[list[tuple[str, dict[str, Any]]], Chosen]:
    """Where values come from with these values, the call last; and the parts of other packages
    that they name, if something is given which only these can know: others are not imported."""
    path, built_in = home_dir() / "config.toml", known_settings()
    file, call = _from_file(path), {k: v for k, v in overrides.items() if v is not None}
    environment = _from_environment(variables, built_in)
    chosen = _named({**file, **environment, **call})
    known = {HOME_VARIABLE, *(variable_of(name, info) for name, info in built_in.items())}
    others = (name for name in variables if name.startswith(ENVIRONMENT_PREFIX))
    if {*file, *call} <= built_in.keys() and known.issuperset(others):
        chosen = ()
    elif call.keys() <= built_in.keys():
        # A part that cannot be loaded stops only the runs that use it.
        chosen = tuple(each for each in chosen if can_be_loaded(*each))
    if chosen:
        environment = _from_environment(variables, known_settings(chosen))
    return [(str(path), file), ("the environment", environment), ("", call)], chosen


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


def _from_environment(
    variables: Mapping[str, str], known: Mapping[str, FieldInfo]
) -> dict[str, Any]:
    given = {name: variables.get(variable_of(name, info)) for name, info in known.items()}
    return {name: value for name, value in given.items() if value}


def explained(
    error: ValidationError, known: Mapping[str, FieldInfo], origin: Mapping[str, str]
) -> str:
    """One line for the first thing that is wrong: name, value, expectation, place."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    place = f" (in {origin[name]})" if origin.get(name) else ""
    if first["type"] == "extra_forbidden":
        repr_name = repr(name if len(name) <= MAX_SHOWN else f"{name[:MAX_SHOWN]}...")
        return f"there is no setting {repr_name}{place}; the settings are {', '.join(known)}"
    given = repr(first["input"])
    given = given if len(given) <= MAX_SHOWN else f"{given[:MAX_SHOWN]}..."
    expected = hint(known[name], "expected") if name in known else None
    if expected:
        return f"{name} must be {expected}, got {given}{place}"
    message = first["msg"][0].lower() + first["msg"][1:]
    got = "" if name in known and hint(known[name], "secret") else f", got {given}"
    return f"{name}: {message}{got}{place}"
