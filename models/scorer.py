"""Models as ONNX, scored: what an edge needs of them, without scikit-learn and onnx."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError
from models.multivariate import rounded

Float64 = NDArray[np.float64]
SCORE = "score"
"""Name of the output."""


class Scorer:
    """A model as ONNX, ready to score; on one thread, so that it does the same everywhere."""

    def __init__(self, data: bytes, features: tuple[str, ...]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._features = features
        self._session = onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"]
        )

    def score(self, rows: Float64) -> Float64:
        """Return the rounded score of each row, as :meth:`models.multivariate.Model.score`.

        :raises ModelError: if there are other numbers of features.
        """
        if rows.ndim != 2 or rows.shape[1] != len(self._features):
            raise ModelError(f"rows of shape {rows.shape}; expected {len(self._features)} features")
        return rounded(self.raw(rows))

    def raw(self, rows: Float64) -> Float64:
        """Return scores before they are rounded."""
        score = np.full(len(rows), np.nan)
        known = np.isfinite(rows).all(axis=1)
        if known.any():
            (found,) = self._session.run([SCORE], {"rows": rows[known]})
            score[known] = np.asarray(found, np.float64).ravel()
        return score
