"""The OpenAPI 3.1 document of the manager's API, made from the endpoints and their models."""

from typing import Any, Literal

from pydantic.json_schema import models_json_schema

from lbmux import __version__
from lbmux.config.field_types import Model
from lbmux.manager.api_models import ErrorAnswer
from lbmux.manager.endpoints import ENDPOINTS, Endpoint

SCHEMAS = "#/components/schemas/"


def document() -> dict[str, Any]:
    models: set[type[Model]] = {ErrorAnswer, *(one.answer for one in ENDPOINTS)}
    models |= {one.request for one in ENDPOINTS if one.request}
    wanted: list[tuple[type[Model], Literal["validation"]]] = [
        (model, "validation") for model in sorted(models, key=lambda model: model.__name__)
    ]
    _, schemas = models_json_schema(wanted, ref_template=f"{SCHEMAS}{{model}}")
    paths: dict[str, Any] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "lbmux manager", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "node": {"type": "mutualTLS", "description": "The certificate of a node or manager of the pool."},
            },
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    needs = {"public": "nothing", "node": "a node's certificate"}.get(endpoint.access, f"role {endpoint.access}")
    operation: dict[str, Any] = {
        "operationId": endpoint.handle.__name__,
        "summary": endpoint.summary,
        "description": f"Needs {needs}." + (" Other managers redirect to the primary." if endpoint.writes else ""),
        "responses": {"200": _content(endpoint.answer.__name__, "Done."), "default": _content("ErrorAnswer", "Error.")},
        "security": [] if endpoint.access == "public" else [{"node" if endpoint.access == "node" else "token": []}],
    }
    if endpoint.query:
        operation["parameters"] = [
            {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
            for name, text in endpoint.query.items()
        ]
    if endpoint.request is not None:
        operation["requestBody"] = {**_content(endpoint.request.__name__, "The request."), "required": True}
    return operation


def _content(model: str, description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": {"$ref": f"{SCHEMAS}{model}"}}}}
