"""
What the API is like, as OpenAPI: from the pages and the types of what they find.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from allele_mlflow.dashboard.addresses import api_path, figure_path
from allele_mlflow.dashboard.answers import SCHEME
from allele_mlflow.dashboard.pages.page import Page
from allele_mlflow.dashboard.views import (
    FILTER,
    FIND,
    GROUP,
    LONGEST_TEXT,
    MOST_PAGES,
    MOST_ROWS,
    PAGE,
    ROWS,
    SORT,
    Knobs,
    Option,
)
from allele_mlflow.version import __version__

DESCRIPTION_PATH = "/api/openapi.json"
_ABOUT = {
    FILTER: "An expression over params and tags, e.g. `mutation_rate < 0.2`.",
    FIND: "A text that names must contain.",
    GROUP: "A param or tag by which rows are grouped.",
    SORT: "A column; with a minus before it, the largest first.",
}


def description(pages: Sequence[Page], root: str = "") -> bytes:
    """
    The description as JSON.

    Args:
        pages: All of them.
        root: The path at which the app is mounted.
    """
    types = [page.content for page in pages]
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, Any] = {}
    for page, schema in zip(pages, schemas, strict=True):
        found = {"application/json": {"schema": schema}}
        paths[api_path(page.path)] = _operation(page, page.name, page.knobs.options, found)
        if page.figures:
            path = figure_path(page.path)
            drawn = {"application/json": {"schema": {"type": "object"}}}
            paths[path] = _operation(
                page, f"{page.name}_figure", (*page.knobs.options, SCHEME), drawn
            )
            paths[path]["get"]["parameters"].append(_in_path("figure", sorted(page.figures)))
            paths[path]["get"]["responses"]["204"] = {"description": "There is nothing to draw."}
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "allele-mlflow dashboard",
            "version": __version__,
            "description": "What the pages show, as JSON. What is no number is null.",
        },
        "servers": [{"url": root or "/"}],
        "paths": paths,
        "components": {"schemas": components | {"Error": _ERROR}},
    }
    return msgspec.json.encode(document)


_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "detail": {"type": "string"}},
    "required": ["error", "detail"],
}


def _operation(
    page: Page, name: str, options: Sequence[Option], found: dict[str, Any]
) -> dict[str, Any]:
    told = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    wrong = {
        "400": "The address means nothing.",
        "401": "Nobody was let in.",
        "404": "There is no such thing.",
        "503": "The store does not answer.",
    }
    return {
        "get": {
            "operationId": name,
            "summary": page.summary,
            "parameters": [
                *(_in_path(one) for one in page.param_names),
                *_in_query(page.knobs, options),
            ],
            "responses": {
                "200": {"description": page.summary, "content": found},
                **{code: {"description": text, "content": told} for code, text in wrong.items()},
            },
        }
    }


def _in_path(name: str, choices: Sequence[str] = ()) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "minLength": 1}
    if choices:
        schema = {"type": "string", "enum": list(choices)}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(knobs: Knobs, options: Sequence[Option]) -> list[dict[str, Any]]:
    text = {"type": "string", "maxLength": LONGEST_TEXT}
    schemas: dict[str, dict[str, Any]] = {
        PAGE: {"type": "integer", "minimum": 1, "maximum": MOST_PAGES},
        ROWS: {"type": "integer", "minimum": 1, "maximum": MOST_ROWS},
    }
    labels = {option.name: option.label for option in options}
    for option in options:
        choices = list(dict.fromkeys([*option.choices, option.default]))
        schemas[option.name] = {"type": "string", "enum": choices} if option.choices else text
        if option.is_repeated:
            schemas[option.name] = {"type": "array", "items": text}
    names = dict.fromkeys([*knobs.names, *labels])
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": _ABOUT.get(name, labels.get(name, name)),
            "schema": schemas.get(name, text),
        }
        for name in names
    ]
