"""JSON bodies: limited before they are parsed, and parsed in a thread, so that the loop goes on
answering others."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, TypeVar

from fastapi import Request, UploadFile
from pydantic import BaseModel, ValidationError, WithJsonSchema

from sam_detect.errors import ConfigError
from sam_detect.server.http import first_problem

MOST_VALUES = 100_000
"""Of a JSON text: each may take a hundred times the memory that it takes in the text."""
FormFile = Annotated[UploadFile, WithJsonSchema({"type": "string", "format": "binary"})]


Said = TypeVar("Said", bound=BaseModel)


async def parsed(model: type[Said], request: Request) -> Said:
    """What a request without pictures says; raises ``ConfigError``, which names the field, where it
    is malformed."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
    if kind != "application/json":
        raise ConfigError("send pictures as multipart/form-data (images) or as JSON")
    data = await request.body()

    def parse() -> Said:
        # These characters separate values; in base64 there are none of them.
        if sum(map(data.count, (b"{", b"[", b",", b":"))) > MOST_VALUES:
            raise ConfigError(f"the JSON has too many values: {MOST_VALUES} are read")
        try:
            return model.model_validate_json(data)
        except ValidationError as error:
            raise ConfigError(first_problem(error.errors())) from error

    return await asyncio.to_thread(parse)


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a model in one piece: an OpenAPI document has its definitions elsewhere."""
    schema = model.model_json_schema()
    parts, text = schema.pop("$defs", {}), json.dumps(schema)
    for name, part in parts.items():  # none of them has parts itself
        text = text.replace(json.dumps({"$ref": f"#/$defs/{name}"}), json.dumps(part))
    return dict(json.loads(text))
