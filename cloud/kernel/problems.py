"""What a caller is told when something is refused: RFC 9457 problem details, Spanish with a code.

    raise Problem(METER_UNKNOWN, detail="…")

The `code` is stable and English, for programs and for support; `title` and `detail` are for
people. An unexpected error tells its trace id and nothing else.
"""

from __future__ import annotations

from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cloud.kernel import telemetry
from decoders.value import value

MEDIA_TYPE = "application/problem+json"
FIELDS_MAX = 20  # a body with a thousand faults is told of the first twenty

log = telemetry.logger(__name__)


@value
class ProblemType:
    """A kind of refusal."""

    code: str
    status: int  # HTTP
    title: str  # Spanish, the same for every occurrence


class Problem(Exception):
    """One refusal. `more` holds members for programs; nothing secret, nothing personal."""

    def __init__(
        self,
        kind: ProblemType,
        *,
        detail: str | None = None,
        headers: dict[str, str] | None = None,
        **more: Any,  # noqa: ANN401  JSON values
    ) -> None:
        super().__init__(f"{kind.code}: {detail or kind.title}")
        self.kind = kind
        self.detail = detail
        self.headers = headers
        self.more = more


def problem_type(code: str, status: int, title: str) -> ProblemType:
    """Declare a kind of refusal beside what refuses."""
    return ProblemType(code=code, status=status, title=title)


NOT_FOUND = problem_type("not_found", 404, "No existe lo que busca")
METHOD_NOT_ALLOWED = problem_type("method_not_allowed", 405, "Esta dirección no admite esa acción")
INVALID_INPUT = problem_type("invalid_input", 422, "Los datos enviados no son válidos")
TOO_LARGE = problem_type("too_large", 413, "El contenido enviado es demasiado grande")
UNAUTHENTICATED = problem_type("unauthenticated", 401, "Inicie sesión para continuar")
FORBIDDEN = problem_type("role_missing", 403, "Su cuenta no tiene permiso para esto")
UNAVAILABLE = problem_type("unavailable", 503, "El servicio no está disponible en este momento")
UNEXPECTED = problem_type("unexpected", 500, "Ocurrió un error inesperado")
REFUSED = problem_type("refused", 400, "No se pudo atender la solicitud")

_BY_STATUS = {kind.status: kind for kind in (NOT_FOUND, METHOD_NOT_ALLOWED, TOO_LARGE, UNAVAILABLE)}

_TEXT = {"type": "string"}
RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "What went wrong, as RFC 9457 problem details",
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "title": "Problem",
                    "type": "object",
                    "required": ["type", "title", "status", "code"],
                    "properties": {
                        "type": {**_TEXT, "format": "uri"},
                        "title": {**_TEXT, "description": "for people, in Spanish"},
                        "status": {"type": "integer"},
                        "code": {**_TEXT, "description": "for programs; does not change"},
                        "detail": _TEXT,
                        "trace_id": {**_TEXT, "description": "to be quoted in a report"},
                    },
                }
            }
        },
    }
}
"""Every route's refusals, as OpenAPI describes them."""

# What pydantic says in English, by its error type; the rest is "valor no válido".
_FAULTS = {
    "missing": "falta este dato",
    "int_parsing": "debe ser un número entero",
    "int_type": "debe ser un número entero",
    "greater_than_equal": "debe ser mayor o igual que {ge}",
    "less_than_equal": "debe ser menor o igual que {le}",
    "string_too_long": "no puede tener más de {max_length} caracteres",
    "string_too_short": "debe tener al menos {min_length} caracteres",
    "datetime_from_date_parsing": "debe ser fecha y hora, como 2026-03-01T06:00:00Z",
    "datetime_parsing": "debe ser fecha y hora, como 2026-03-01T06:00:00Z",
    "literal_error": "debe ser uno de: {expected}",
    "enum": "debe ser uno de: {expected}",
}


def answer(problem: Problem) -> JSONResponse:
    """Render a problem."""
    body: dict[str, Any] = {
        "type": f"urn:aquacis:problem:{problem.kind.code}",
        "title": problem.kind.title,
        "status": problem.kind.status,
        "code": problem.kind.code,
    }
    if problem.detail is not None:
        body["detail"] = problem.detail
    if trace := telemetry.current():
        body["trace_id"] = telemetry.trace_id(trace)
    body.update(problem.more)
    return JSONResponse(body, problem.kind.status, problem.headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every refusal of `app` a problem document."""
    app.add_exception_handler(Problem, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def _ours(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return answer(error)


def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [
        {"field": ".".join(str(part) for part in one["loc"][1:]), "message": _fault(one)}
        for one in error.errors()[:FIELDS_MAX]
    ]
    detail = "; ".join(f"{one['field']}: {one['message']}" for one in faults)
    return answer(Problem(INVALID_INPUT, detail=detail, errors=faults))


def _fault(one: dict[str, Any]) -> str:
    text = _FAULTS.get(one["type"], "valor no válido")
    return text.format_map({key: str(given) for key, given in one.get("ctx", {}).items()})


def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kind = _BY_STATUS.get(error.status_code)
    if kind is None:
        kind = problem_type(REFUSED.code, error.status_code, REFUSED.title)
    return answer(Problem(kind, headers=dict(error.headers or {})))


def failed(error: Exception) -> JSONResponse:
    """Log what no code expected; tell the caller only how to report it, or to try again."""
    if isinstance(error, psycopg.OperationalError):  # also: no connection of the pool in time
        log.error("database_unavailable", error=str(error))
        return answer(Problem(UNAVAILABLE, headers={"Retry-After": "5"}))
    log.failure("request_failed", error)
    return answer(
        Problem(UNEXPECTED, detail="Si se repite, reporte el código de seguimiento (trace_id).")
    )
