"""What commands ask of a running process over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from streams.errors import ServiceError
from streams.settings import load

_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Place:
    """An api process, or an edge."""

    base: str
    process: str
    tenant: str | None

    @staticmethod
    def of(edge: str | None, api: str | None, tenant: str) -> Place:
        """Return whom to ask: the edge or the api that is given, or the api of the settings.

        :raises ServiceError: if both are given.
        """
        if edge and api:
            raise ServiceError("give --edge or --api, not both")
        ops = load().ops
        base = (edge or api or f"http://{ops.host}:{ops.api_port}").rstrip("/")
        return Place(base, "edge" if edge else "api", None if edge else tenant)

    def ask(self, method: str, path: str, *, body: Any = None, timeout_s: float = 0) -> Any:
        """Return what the process answers, decoded; None where it knows of no such thing.

        :raises ServiceError: if it cannot be reached, or refuses.
        """
        url = self.base + path
        try:
            answer = httpx.request(
                method, url, params=self._query(), json=body, timeout=timeout_s or _TIMEOUT_S
            )
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.is_error:
            raise ServiceError(f"{url} answered {answer.status_code}: {_detail(answer)}")
        return None if answer.status_code == httpx.codes.NO_CONTENT else answer.json()

    def lines(self, path: str) -> Iterator[Any]:
        """Yield the lines of an answer that does not end, decoded.

        :raises ServiceError: if the process cannot be reached, or goes away.
        """
        try:
            silent = httpx.Timeout(_TIMEOUT_S, read=None)
            url = self.base + path
            with httpx.stream("GET", url, params=self._query(), timeout=silent) as found:
                if found.is_error:
                    found.read()
                    raise ServiceError(f"{url} answered {found.status_code}: {_detail(found)}")
                yield from map(orjson.loads, found.iter_lines())
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def unknown(self, what: str) -> ServiceError:
        """Return the error for something that the process does not know."""
        return ServiceError(f"{self.base}: {what}")

    def _query(self) -> dict[str, str] | None:
        return None if self.tenant is None else {"tenant": self.tenant}

    def _unreachable(self, error: httpx.HTTPError) -> ServiceError:
        return ServiceError(
            f"{self.base} cannot be reached: {error}; is it running? (headwater {self.process})"
        )


def _detail(answer: Any) -> str:
    """Return the sentence of a refusal, or its text as it came."""
    try:
        detail = orjson.loads(answer.content)["detail"]
        return str(detail["detail"] if isinstance(detail, dict) else detail)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return str(answer.text[:300])
