"""The base class and the field types that all configuration models share."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError

from lbmux.addresses import Address
from lbmux.config.renamed_keys import RENAMED

MESSAGES = {"missing": "is missing", "model_type": "should be a mapping"}
"""Messages that replace pydantic's own, by error type."""


def error_message(error: ErrorDetails, model: type[BaseModel]) -> str:
    """Turn a pydantic error about a `model` into a message that follows the field's name."""
    old = str(error["loc"][-1]) if error["loc"] else ""
    if error["type"] == "extra_forbidden" and old in RENAMED:
        return f"was renamed to {RENAMED[old]}"
    if error["type"] == "extra_forbidden":
        return "is not a known field" + _suggestion(model, error["loc"])
    return MESSAGES.get(error["type"]) or error["msg"].removeprefix("Input ")


def _suggestion(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    *parents, name = location
    known: type[BaseModel] | None = model
    for step in parents:
        if isinstance(step, str) and known is not None:
            known = _model_in(known.model_fields[step].annotation)
    close = get_close_matches(str(name).lower().replace("-", "_"), known.model_fields, 1) if known else []
    return f": did you mean `{close[0]}`?" if close else ""


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model in a field's annotation: bare, optional or in a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _unicast(value: object) -> Address:
    """Check for a unicast address given as text; `ipaddress` alone would accept an integer too."""
    if not isinstance(value, str | IPv4Address | IPv6Address):
        raise PydanticCustomError("address", "should be an IP address as text")
    try:
        address = ip_address(value)
    except ValueError:
        raise PydanticCustomError("address", "is not an IPv4 or IPv6 address") from None
    if address.is_multicast:
        raise PydanticCustomError("address", "is a multicast address; use a unicast address")
    if address.is_unspecified or (address.version == 4 and (address.is_reserved or address.packed[0] == 0)):
        raise PydanticCustomError("address", "is not a unicast address")
    if address.version == 6 and (address.is_link_local or address.ipv4_mapped):
        raise PydanticCustomError("address", "is not a routable address")
    return address


def _remote(address: Address) -> Address:
    if address.is_loopback:
        raise PydanticCustomError("address", "is a loopback address, which other machines cannot reach")
    return address


def _routed(address: Address) -> Address:
    if address.is_link_local:
        raise PydanticCustomError("address", "is a link-local address, which routers do not forward to")
    return address


Unicast = Annotated[IPv4Address | IPv6Address, BeforeValidator(_unicast)]
Remote = Annotated[Unicast, AfterValidator(_remote)]
"""An address that other machines can reach."""
Routed = Annotated[Remote, AfterValidator(_routed)]
"""An address that other machines can reach through routers."""
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Seconds = Annotated[int, Field(strict=True, ge=1, le=86400)]
Share = Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\s\x00-\x1f\x7f]+$")]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe fields by the docstrings below them.

        Pydantic's `use_attribute_docstrings` would read every model's source whenever a daemon starts.
        """
        described = handler(schema)
        fields = handler.resolve_ref_schema(described)["properties"]
        for model in reversed(cls.__mro__):
            for name, text in _docstrings(model) if issubclass(model, Model) else ():
                fields[name]["description"] = text
        return described


def _docstrings(model: type[Model]) -> Iterator[tuple[str, str]]:
    """Yield the fields of a class that have a docstring, and their docstrings."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(definition, ast.ClassDef)
    for field, text in pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match text:
                case ast.Expr(ast.Constant(str(said))):
                    yield field.target.id, inspect.cleandoc(said)


def _prefix(value: object) -> IPv4Network | IPv6Network:
    if not isinstance(value, str | IPv4Network | IPv6Network):
        raise PydanticCustomError("prefix", "should be a prefix as text")
    try:
        return ip_network(value)
    except ValueError as error:
        wrong = "has host bits set" if "host bits" in str(error) else "is not a prefix, such as 192.0.2.0/24"
        raise PydanticCustomError("prefix", wrong) from None


Prefix = Annotated[IPv4Network | IPv6Network, BeforeValidator(_prefix)]


def _any_port(value: object) -> object:
    if value == "any":
        return 0
    if value == 0 and not isinstance(value, bool):
        raise PydanticCustomError("port", "should be 1 to 65535, or `any`")
    return value


def _written_port(port: int) -> int | str:
    return port or "any"


PortOrAny = Annotated[
    int, Field(strict=True, ge=0, le=65535), BeforeValidator(_any_port),
    PlainSerializer(_written_port, when_used="json"),
]  # fmt: skip


class AutoWeight(int):
    """The weight of a backend with `weight: auto`: a number to build tables from, until reports of its load change it.

    It differs from the same number written in the file.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AutoWeight) and int(self) == int(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__


AUTO_WEIGHT = AutoWeight(100)


def _weight(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    return AUTO_WEIGHT if value == "auto" else handler(value)


def _written_weight(weight: int) -> int | str:
    return "auto" if isinstance(weight, AutoWeight) else weight


WholeWeight = Annotated[int, Field(strict=True, ge=0, le=65535)]
Weight = Annotated[
    WholeWeight, WrapValidator(_weight, json_schema_input_type=WholeWeight | Literal["auto"]),
    PlainSerializer(_written_weight, when_used="json"),
]  # fmt: skip
