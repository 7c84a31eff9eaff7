"""What a page may say over the WebSocket of the live page."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sam_detect.errors import ConfigError

MOST_CHARACTERS = 16_384
"""Of a message; the longest one that makes sense has a name of 200 characters."""
MOST_LABEL = 2000
"""The library has its own limit, and says so in better words."""

Coordinate = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=1, le=2**53)]
Key = Annotated[str, Field(min_length=1, max_length=64)]


class _Message(BaseModel):
    """Attributes: id: what an answer refers to; the same id again gets the same answer."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Question(_Message):
    id: Key


class Got(_Message):
    """A frame has come, and all those before it."""

    type: Literal["got"]
    number: Number


class Look(_Question):
    """Which object is it: at a point or in a box of a frame that was sent, or on a track now?"""

    type: Literal["look"]
    number: Number | None = None
    point_xy: tuple[Coordinate, Coordinate] | None = None
    box_xywh: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = None
    track: Number | None = None


class Name(Look):
    """An object has this name; ``seen`` is one that an answer to :class:`Look` gave."""

    type: Literal["name"]  # type: ignore[assignment]
    seen: Key | None = None
    label: Annotated[str, Field(max_length=MOST_LABEL)]


class Reject(_Question):
    """The object on a track is not what its label says."""

    type: Literal["reject"]
    track: Number | None = None
    seen: Key | None = None
    label: Annotated[str, Field(max_length=MOST_LABEL)]


class Undo(_Question):
    """Take back what was taught on a track, or what was taught last."""

    type: Literal["undo"]
    track: Number | None = None


class Control(_Question):
    """Pauses the video, lets it go on, or ends it."""

    type: Literal["pause", "resume", "finish"]


Message = Got | Look | Name | Reject | Undo | Control
_ANY: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def read_message(text: str) -> Message:
    """A message of a page.

    Raises:
        ConfigError: it is too long, no JSON, of an unknown kind, or malformed.
    """
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(f"a message may have {MOST_CHARACTERS} characters")
    try:
        return _ANY.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(each) for each in first["loc"][1:])
        raise ConfigError(f"{place}: {first['msg']}" if place else first["msg"]) from error
