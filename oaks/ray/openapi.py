"""The schema that the service publishes at /openapi.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oaks.ray.requests import RequestLimits


def openapi(model: Mapping[str, Any], bounds: RequestLimits) -> dict[str, Any]:
    """OpenAPI 3.1 description of a service.

    Args:
        model: the reply of /model.
        bounds: limits on a request.
    """
    from oaks import __version__

    return {
        "openapi": "3.1.0",
        "info": {
            "title": "oaks",
            "version": __version__,
            "description": f"Human poses with calibrated scores, by the model {model['name']}.",
        },
        "paths": {
            "/predict": {"post": _predict(bounds)},
            "/model": _get("Keypoints of the model, and limits on requests.", _reference("Model")),
            "/healthz": {
                "get": {
                    "summary": "Whether the service accepts requests.",
                    "responses": {
                        "200": _json("It does.", _reference("Health")),
                        "503": _json("It is stopping.", _reference("Health")),
                    },
                }
            },
            "/metrics": _get("Counters in Prometheus's text format.", {"type": "string"}, "text/plain"),
            "/openapi.json": _get("This description.", {"type": "object"}),
            "/": _get(
                "A page on which a picture is dropped and its poses are shown.",
                {"type": "string"},
                "text/html",
            ),
        },
        "components": {"schemas": _schemas(len(model["keypoints"]), bounds)},
    }


def _predict(bounds: RequestLimits) -> dict[str, Any]:
    boxes = _reference("Boxes")
    return {
        "summary": "The poses in a picture.",
        "parameters": [
            {
                "name": "boxes",
                "in": "query",
                "description": "Boxes as JSON, or the word whole; unless the body has them.",
                "content": {"application/json": {"schema": boxes}},
            }
        ],
        "requestBody": {
            "required": True,
            "description": f"A JPEG or PNG of at most {bounds.bytes} bytes and {bounds.pixels} pixels.",
            "content": {
                **{kind: {"schema": {}} for kind in ("image/jpeg", "image/png", "application/octet-stream")},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["image"],
                        "properties": {
                            "image": {"type": "string", "contentMediaType": "image/jpeg"},
                            "boxes": boxes,
                        },
                    }
                },
                "application/json": {"schema": _reference("Request")},
            },
        },
        "responses": {
            "200": _json(
                "The people in the order of the boxes; detected people, best first.", _reference("Reply")
            ),
            "413": _json("The picture has too many bytes or pixels.", _reference("Error")),
            "422": _json("The picture or the boxes cannot be used, or too many people.", _reference("Error")),
            "500": _json("The poses could not be computed.", _reference("Error")),
            "503": {
                **_json("The queue is full, or the service is stopping.", _reference("Error")),
                "headers": {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}},
            },
        },
    }


def _schemas(keypoints: int, bounds: RequestLimits) -> dict[str, Any]:
    def numbers(count: int, description: str, **limits: float) -> dict[str, Any]:
        items = {"type": "number", **limits}
        return {
            "type": "array", "items": items, "minItems": count, "maxItems": count, "description": description,
        }  # fmt: skip

    def perhaps(description: str, **limits: float) -> dict[str, Any]:
        """Return a schema of one number or null per keypoint, or null for all."""
        known = numbers(keypoints, description, **limits)
        return {**known, "type": ["array", "null"], "items": {**known["items"], "type": ["number", "null"]}}

    per_keypoint = {
        "visibility": "Probability that an annotator would have placed each keypoint; null if the model has none.",
        "similarity": "Predicted keypoint similarity; null if the model has none.",
    }
    pose = {
        "keypoints": numbers(
            3 * keypoints, "x, y and score of each keypoint, in pixels of the upright picture."
        ),
        "score": {"type": "number", "description": "Score of the pose times that of its box."},
        "box": numbers(4, "x, y, width, height."),
        "box_score": {"type": "number"},
        "oaks_score": {"type": ["number", "null"]},
        "conventional_score": {"type": ["number", "null"]},
        **{name: perhaps(text, minimum=0, maximum=1) for name, text in per_keypoint.items()},
        "heat": perhaps("Heatmap maxima."),
    }
    text, whole = {"type": "string"}, {"type": "integer", "minimum": 1}
    return {
        "Boxes": {
            "anyOf": [
                {"const": "whole", "description": "The picture is one person."},
                {
                    "type": "array",
                    "maxItems": bounds.people,
                    "items": numbers(4, "x, y, width, height in pixels; width and height above 0."),
                },
            ]
        },
        "Request": _object(
            {"image": {"type": "string", "contentEncoding": "base64"}, "boxes": _reference("Boxes")}, ["image"]
        ),
        "Pose": _object(pose),
        "Reply": _object({
            "model": text, "score_kind": {"enum": ["oaks", "conventional"]}, "width": whole, "height": whole,
            "poses": {"type": "array", "items": _reference("Pose")},
        }),
        "Model": _object({
            "name": text, "keypoints": {"type": "array", "items": text},
            "limbs": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
            "score": {"enum": ["oaks", "conventional"]}, "detector": {"type": "boolean"},
            "max_bytes": whole, "max_pixels": whole, "max_people": whole,
        }),
        "Health": _object({"status": {"enum": ["ok", "stopping"]}}),
        "Error": _object({"error": text}),
    }  # fmt: skip


def _object(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": required or list(properties),
        "additionalProperties": False,
    }  # fmt: skip


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _get(summary: str, schema: Mapping[str, Any], kind: str = "application/json") -> dict[str, Any]:
    return {
        "get": {
            "summary": summary,
            "responses": {"200": {"description": summary, "content": {kind: {"schema": schema}}}},
        }
    }


__all__ = ["openapi"]
