"""The control protocol: one JSON object a line each way, over a Unix stream socket.

    {"command": "reload", "version": 1}                          a request: the command and its arguments
    {"version": 1, "ok": true, "result": ...}                    the answer
    {"version": 1, "ok": false, "error": "...", "problems": []}  the answer if the request fails

A stream has several answers, each with `"more": true`, and ends with `{"version": 1, "ok": true, "end": true}`.

Requests (lbmux.api.requests) and answers (lbmux.api.answers) are frozen dataclasses whose fields are the JSON fields.
An unknown argument of a request is refused; unknown fields of an answer are ignored, so a daemon may add fields.
"""

import json
from dataclasses import is_dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import TypeAdapter

VERSION = 1
"""Changes when a field of a request or an answer is removed or changes its meaning, not when a field is added.

Both sides state it.  A request or an answer without a version has version 1.
"""


def to_json(value: Any) -> str:
    """Return an answer, or plain data with answers in it, as JSON; raise TypeError if a part has no JSON form."""
    return json.dumps(value, default=_fields)


def to_plain(value: Any) -> Any:
    """Return an answer as dictionaries and lists."""
    return json.loads(to_json(value))


def from_plain(kind: Any, value: Any) -> Any:
    """Return the ``kind`` of answer that dictionaries and lists describe; ValueError, in one line, if they do not."""
    from pydantic import ValidationError

    try:
        return adapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _fields(value: Any) -> dict[str, Any]:
    if not is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"{type(value).__name__} is not JSON serializable")
    omitted = getattr(value, "OMITTED_IF_NONE", ())
    if not omitted:
        return vars(value)
    return {name: field for name, field in vars(value).items() if field is not None or name not in omitted}


@lru_cache
def adapter(kind: Any) -> "TypeAdapter[Any]":
    """Return the validator of a type; pydantic is imported only where something is validated."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
