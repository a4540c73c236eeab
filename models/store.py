"""One version of a model as files: ``model.skops``, ``model.onnx`` and ``card.json``.

Never pickle: skops stores what scikit-learn learnt without code, and a file that names any other
type than those listed here is refused before anything is built from it. The card has the SHA-256
of both files; a file that was changed is refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import ModelError
from models.multivariate import STEP, Model
from models.scorer import Scorer
from models.training import Part, Plan, Trained

SKOPS, ONNX, CARD = "model.skops", "model.onnx", "card.json"
_FORMAT = 1
_PACKAGES = ("numpy", "scikit-learn", "onnx", "skops")
_TRUSTED = frozenset({"sklearn.tree._tree.Tree"})
"""Types beyond those that skops knows as harmless: none that runs code of a file."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a model is, for people and for those who load it.

    ``ranges`` are the least and greatest of each feature in training, ``usual`` its medians (empty
    in cards of earlier versions). Times in ms since the epoch.
    """

    name: str
    kind: str
    features: tuple[str, ...]
    threshold: float
    step: float
    seed: int
    alarm_share: float
    rows: int
    since_ms: int
    until_ms: int
    ranges: tuple[tuple[float, float], ...]
    parts: tuple[Part, ...]
    packages: dict[str, str]
    sha256: dict[str, str]
    usual: tuple[float, ...] = ()
    format: int = _FORMAT


@dataclass(frozen=True, slots=True)
class Stored:
    """A version that was read and found whole."""

    card: Card
    folder: Path

    def model(self) -> Model:
        """Return the model as scikit-learn.

        :raises ModelError: if the file is not what the card says, or names a type that is not ours.
        """
        from skops.io import get_untrusted_types, loads

        data = self._read(SKOPS)
        strange = sorted(set(get_untrusted_types(data=data)) - _TRUSTED)
        if strange:
            raise ModelError(f"{self.folder / SKOPS}: refused, it names {', '.join(strange)}")
        held = loads(data, trusted=sorted(_TRUSTED))
        return Model(
            kind=self.card.kind,
            features=self.card.features,
            center=np.asarray(held["center"]),
            scale=np.asarray(held["scale"]),
            estimator=held["estimator"],
            limits=np.asarray(held["limits"]),
        )

    def scorer(self) -> Scorer:
        """Return the model as ONNX.

        :raises ModelError: if the file is not what the card says.
        """
        return Scorer(self._read(ONNX), self.card.features)

    def read(self, name: str) -> bytes:
        """Return a file of the version, found whole.

        :raises ModelError: if it is not what the card says; the card itself was checked before.
        """
        if name == CARD:
            return (self.folder / CARD).read_bytes()
        return self._read(name)

    def _read(self, name: str) -> bytes:
        path = self.folder / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{path}: {error.strerror}") from error
        found, wanted = digest(data), self.card.sha256.get(name)
        if found != wanted:
            raise ModelError(
                f"{path}: refused, its SHA-256 is {found[:12]}…, expected {str(wanted)[:12]}…: "
                "it was changed after it was stored"
            )
        return data


def write(
    folder: Path, name: str, plan: Plan, trained: Trained, data: tuple[Any, Any]
) -> tuple[Card, str]:
    """Store a model in an empty folder; return its card and the card's SHA-256.

    :param data: times and rows that it was trained from.
    """
    from skops.io import dumps

    from models.graphs import to_onnx

    model, (t_ms, rows) = trained.model, data
    held = {
        "center": model.center,
        "scale": model.scale,
        "estimator": model.estimator,
        "limits": model.limits,
    }
    files = {SKOPS: dumps(held), ONNX: to_onnx(model)}
    known = rows[np.isfinite(rows).all(axis=1)]
    card = Card(
        name=name,
        kind=model.kind,
        features=model.features,
        threshold=trained.threshold,
        step=STEP,
        seed=plan.seed,
        alarm_share=plan.alarm_share,
        rows=len(known),
        since_ms=int(np.min(t_ms)),
        until_ms=int(np.max(t_ms)) + 1,
        ranges=tuple(
            (float(low), float(high))
            for low, high in zip(known.min(axis=0), known.max(axis=0), strict=True)
        ),
        parts=trained.parts,
        usual=tuple(np.median(known, axis=0).tolist()),
        packages={package: version(package) for package in _PACKAGES},
        sha256={file: digest(data) for file, data in files.items()},
    )
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    text = json.dumps(asdict(card), indent=2).encode()
    (folder / CARD).write_bytes(text)
    return card, digest(text)


def read(folder: Path, sha256: str) -> Stored:
    """Read a version's card.

    :param sha256: of the card, as it was stored.
    :raises ModelError: if it is not there, was changed, or is of another format.
    """
    path = folder / CARD
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    if digest(data) != sha256:
        raise ModelError(f"{path}: refused, it was changed after it was stored")
    fields = json.loads(data)
    if fields.get("format") != _FORMAT:
        raise ModelError(f"{path}: format {fields.get('format')!r}, expected {_FORMAT}")
    fields["features"] = tuple(fields["features"])
    fields["ranges"] = tuple((low, high) for low, high in fields["ranges"])
    fields["usual"] = tuple(fields.get("usual", ()))
    fields["parts"] = tuple(Part(**part) for part in fields["parts"])
    return Stored(Card(**fields), folder)


def digest(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
