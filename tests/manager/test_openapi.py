"""The OpenAPI document: what is served is what it describes."""

import json
import re
from typing import Any

import pytest

from lbmux.manager.endpoints import ENDPOINTS, Endpoint
from lbmux.manager.openapi import document

DOCUMENT = document()


def references(value: Any) -> set[str]:
    return set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(value)))


def test_each_endpoint_is_described_once() -> None:
    described = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert described == {(one.method, one.path) for one in ENDPOINTS} and len(described) == len(ENDPOINTS)
    names = [operation["operationId"] for item in DOCUMENT["paths"].values() for operation in item.values()]
    assert len(set(names)) == len(names)


def test_each_reference_leads_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    referenced = references(DOCUMENT)
    assert referenced and {one.removeprefix("#/components/schemas/") for one in referenced} <= schemas.keys()
    assert len(referenced) == len(schemas), "a schema that nothing uses"


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: f"{one.method} {one.path}")
def test_an_operation_has_its_models_and_its_access(endpoint: Endpoint) -> None:
    operation = DOCUMENT["paths"][endpoint.path][endpoint.method.lower()]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": f"#/components/schemas/{endpoint.answer.__name__}"}
    assert ("requestBody" in operation) == (endpoint.request is not None)
    assert operation["security"] == ([] if endpoint.access == "public" else operation["security"][:1])
    assert (operation["security"] == []) == (endpoint.path in ("/v1/ca", "/v1/join"))


def test_unknown_fields_are_refused_as_described() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["ApplyRequest"]["additionalProperties"] is False
    assert schemas["ApplyRequest"]["required"] == ["file"]
