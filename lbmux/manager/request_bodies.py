"""Bodies of requests to the manager: read within limits of time and size, and validated."""

import asyncio
import json

from aiohttp import web
from pydantic import ValidationError

from lbmux.config.field_types import Model, error_message
from lbmux.manager.tokens import AccessError

BODY_S = 20.0
"""How long a body may take to arrive."""


async def read_body(model: type[Model], request: web.Request, most_bytes: int) -> Model:
    """Read and check a request's body; raise AccessError with the status of its fault."""
    text = await read_text(request, most_bytes)
    try:
        return await asyncio.to_thread(model.model_validate_json, text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise AccessError(f"{field or 'the request'}: {error_message(first, model)}", 400) from error


async def read_text(request: web.Request, most_bytes: int) -> bytes:
    """Read a request's body; raise AccessError with the status of its fault."""
    text = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.content.iter_any():
                text += part
                if len(text) > most_bytes:
                    raise AccessError(f"the request has over {most_bytes} bytes", 413)
    except TimeoutError:
        raise AccessError(f"the request's body did not arrive within {BODY_S:g} s", 408) from None
    return bytes(text)


async def control_request(request: web.Request, most_bytes: int) -> tuple[str, str]:
    """Return a request's line, and its command; raise AccessError."""
    try:
        text = await read_text(request, most_bytes)
        command = json.loads(text)["command"]
        return " ".join(text.decode().splitlines()) + "\n", str(command)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AccessError("the body is not a request of the control protocol", 400) from error
