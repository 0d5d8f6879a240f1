"""Checks of lists whose items depend on each other: each fault is reported at its item, all of them in one error.

The valid items of a list are checked even if others are invalid, so that one run reports all problems.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError, ValidatorFunctionWrapHandler
from pydantic_core import InitErrorDetails, PydanticCustomError

from lbmux.config.address_loops import Fault
from lbmux.config.field_types import Model, error_message

Item = TypeVar("Item")


def sound_items(
    value: Any, handler: ValidatorFunctionWrapHandler, model: type[Model]
) -> tuple[dict[int, Any], list[Fault]]:
    """Return the items of a list that are valid by themselves, by index, and the faults of the others."""
    if not isinstance(value, list | tuple):
        raise PydanticCustomError("list", "should be a list")
    sound: dict[int, Any] = {}
    faults: list[Fault] = []
    for at, item in enumerate(value):
        try:
            (sound[at],) = handler([item])
        except ValidationError as error:
            for one in error.errors(include_url=False):
                one["loc"] = one["loc"][1:]
                faults.append(((at, *one["loc"]), error_message(one, model)))
    return sound, faults


def repeated(
    items: dict[int, Item], key: Callable[[Item], Hashable], field: str | None, message: str
) -> Iterator[Fault]:
    """Yield a fault at each item whose key an earlier item has."""
    indexes: dict[Hashable, list[int]] = defaultdict(list)
    for at, item in items.items():
        indexes[key(item)].append(at)
    for repeated, (_, *later) in indexes.items():
        for at in later:
            yield ((at,) if field is None else (at, field)), message.format(repeated)


def tuple_of(sound: dict[int, Item], faults: Iterable[Fault]) -> tuple[Item, ...]:
    """Return the items; raise one ValidationError with all faults if there are any."""
    details = [
        InitErrorDetails(type=PydanticCustomError("fault", "{why}", {"why": why}), loc=at, input=None)
        for at, why in faults
    ]
    if details:
        raise ValidationError.from_exception_data("config", details)
    return tuple(sound.values())


def first_fault(model: type[Model], values: Mapping[str, Any]) -> Fault | None:
    """Return location and message of the first fault of a model's values; None if they are valid."""
    try:
        model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return first["loc"], error_message(first, model)
    return None
