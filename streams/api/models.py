"""Files of trained models over HTTP, for edges that ask for them by hash."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, HTTPException, Response

from models.errors import ModelError
from models.registry import Registry
from models.store import CARD, ONNX


def add_models(app: FastAPI, folder: Path) -> None:
    """Add ``GET /v1/models/{name}/{version}/card.json`` and ``model.onnx``.

    :param folder: the registry's.
    """
    registry = Registry(folder)

    @app.get("/v1/models/{name}/{version}/{file}")
    def model_file(name: str, version: int, file: str) -> Response:
        if file not in (CARD, ONNX):
            raise HTTPException(404, f"no file {file!r}; there are {CARD} and {ONNX}")
        try:
            data = registry.load(name, version).read(file)
        except ModelError as error:
            raise HTTPException(404, str(error)) from error
        return Response(data, media_type="application/octet-stream")
