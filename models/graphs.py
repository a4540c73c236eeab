"""Models as ONNX, for edges: the same scores within 1e-6.

The graphs are built here from a few operators in float64. Converters have none for a robust
covariance, compute a support vector machine in float32, which is not near enough, and make of a
forest one operator per tree, which costs fifty times as much as one operator for all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.multivariate import Model
from models.scorer import SCORE as _SCORE

Float64 = NDArray[np.float64]
_OPSETS = {"": 21, "ai.onnx.ml": 3}
_IR = 10
_SCALED = "scaled"


def to_onnx(model: Model) -> bytes:
    """Return a model as ONNX: input ``rows`` float64[n, features], output ``score`` float64[n]."""
    graph = _Graph()
    graph.add("Sub", ["rows", graph.constant(model.center)], "centred")
    graph.add("Div", ["centred", graph.constant(model.scale)], _SCALED)
    _BUILDERS[model.kind](model, graph)
    return graph.bytes(len(model.features))


class _Graph:
    """Nodes and constants, collected."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any, dtype: Any = np.float64) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def sum_rows(self, name: str, output: str) -> str:
        axes = self.constant([1], np.int64)
        return self.add("ReduceSum", [name, axes], output, keepdims=0)

    def bytes(self, features: int) -> bytes:
        rows = helper.make_tensor_value_info("rows", TensorProto.DOUBLE, [None, features])
        score = helper.make_tensor_value_info(_SCORE, TensorProto.DOUBLE, [None])
        graph = helper.make_graph(self.nodes, "headwater", [rows], [score], self.constants)
        opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=_IR)
        onnx.checker.check_model(made)
        data: bytes = made.SerializeToString()
        return data


def _covariance(model: Model, graph: _Graph) -> None:
    graph.add("Sub", [_SCALED, graph.constant(model.estimator.location_)], "away")
    graph.add("MatMul", ["away", graph.constant(model.estimator.precision_)], "weighed")
    graph.add("Mul", ["weighed", "away"], "parts")
    squared = graph.sum_rows("parts", "squared")
    graph.add("Max", [squared, graph.constant(0.0)], "positive")
    graph.add("Sqrt", ["positive"], _SCORE)


def _pca(model: Model, graph: _Graph) -> None:
    pca = model.estimator
    graph.add("Sub", [_SCALED, graph.constant(pca.mean_)], "away")
    graph.add("MatMul", ["away", graph.constant(pca.components_.T)], "along")
    graph.add("MatMul", ["along", graph.constant(pca.components_)], "explained")
    graph.add("Sub", ["away", "explained"], "off")
    graph.add("Mul", ["off", "off"], "off_squared")
    q = graph.sum_rows("off_squared", "q")
    graph.add("Mul", ["along", "along"], "along_squared")
    variance = graph.constant(np.maximum(pca.explained_variance_, 1e-9))
    graph.add("Div", ["along_squared", variance], "along_scaled")
    t2 = graph.sum_rows("along_scaled", "t2")
    graph.add("Div", [t2, graph.constant(model.limits[0])], "t2_share")
    graph.add("Div", [q, graph.constant(model.limits[1])], "q_share")
    graph.add("Max", ["t2_share", "q_share"], "larger")
    graph.add("Sqrt", ["larger"], _SCORE)


def _svm(model: Model, graph: _Graph) -> None:
    svm = model.estimator
    vectors = np.asarray(svm.support_vectors_)
    graph.add("Mul", [_SCALED, _SCALED], "own_squares")
    axes = graph.constant([1], np.int64)
    own = graph.add("ReduceSum", ["own_squares", axes], "own", keepdims=1)
    graph.add("MatMul", [_SCALED, graph.constant(-2.0 * vectors.T)], "crossed")
    graph.add("Add", [own, "crossed"], "partly")
    graph.add("Add", ["partly", graph.constant((vectors * vectors).sum(axis=1))], "distance")
    graph.add("Mul", ["distance", graph.constant(-float(svm.gamma))], "exponent")
    graph.add("Exp", ["exponent"], "kernel")
    graph.add("MatMul", ["kernel", graph.constant(np.ravel(svm.dual_coef_))], "weighed")
    graph.add("Add", ["weighed", graph.constant(float(svm.intercept_[0]))], "inside")
    graph.add("Neg", ["inside"], _SCORE)


def _forest(model: Model, graph: _Graph) -> None:
    """One operator for all trees: the sum of the depths at which they set a row apart."""
    forest = model.estimator
    # scikit-learn compares in float32 with thresholds in float64.
    graph.add("Cast", [_SCALED], "coarse", to=TensorProto.FLOAT)
    graph.add("Cast", ["coarse"], "seen", to=TensorProto.DOUBLE)
    nodes = [_tree(k, one.tree_) for k, one in enumerate(forest.estimators_)]
    column = {key: np.concatenate([tree[key] for tree in nodes]) for key in nodes[0]}
    leaf = column["leaf"]
    ids = {key: column[key].tolist() for key in ("tree", "node", "feature", "true", "false")}
    graph.add(
        "TreeEnsembleRegressor",
        ["seen"],
        "depths",
        domain="ai.onnx.ml",
        aggregate_function="SUM",
        n_targets=1,
        nodes_treeids=ids["tree"],
        nodes_nodeids=ids["node"],
        nodes_featureids=ids["feature"],
        nodes_truenodeids=ids["true"],
        nodes_falsenodeids=ids["false"],
        nodes_modes=np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        nodes_values_as_tensor=numpy_helper.from_array(column["threshold"], "thresholds"),
        target_treeids=column["tree"][leaf].tolist(),
        target_nodeids=column["node"][leaf].tolist(),
        target_ids=[0] * int(leaf.sum()),
        target_weights_as_tensor=numpy_helper.from_array(column["depth"][leaf], "depths_of_leaves"),
    )
    graph.add("Cast", ["depths"], "wide", to=TensorProto.DOUBLE)
    graph.add("Reshape", ["wide", graph.constant([-1], np.int64)], "flat")
    usual = float(_usual_depth(np.asarray([forest.max_samples_]))[0]) * len(nodes)
    graph.add("Mul", ["flat", graph.constant(-1.0 / usual)], "exponent")
    graph.add("Pow", [graph.constant(2.0), "exponent"], _SCORE)


def _tree(number: int, tree: Any) -> dict[str, NDArray[Any]]:
    leaf = tree.children_left < 0
    depth = np.zeros(tree.node_count)
    # A child has a greater number than its parent.
    for node in np.flatnonzero(~leaf).tolist():
        depth[[tree.children_left[node], tree.children_right[node]]] = depth[node] + 1.0
    return {
        "tree": np.full(tree.node_count, number),
        "node": np.arange(tree.node_count),
        "feature": np.where(leaf, 0, tree.feature),
        "true": np.where(leaf, 0, tree.children_left),
        "false": np.where(leaf, 0, tree.children_right),
        "threshold": np.where(leaf, 0.0, tree.threshold),
        "leaf": leaf,
        "depth": depth + _usual_depth(tree.n_node_samples),
    }


def _usual_depth(rows: NDArray[Any]) -> Float64:
    """Return the mean depth of a search in a binary tree of so many rows (Liu et al. 2008)."""
    n = np.maximum(rows.astype(np.float64), 3.0)
    depth = 2.0 * (np.log(n - 1.0) + np.euler_gamma) - 2.0 * (n - 1.0) / n
    found: Float64 = np.where(rows <= 1, 0.0, np.where(rows == 2, 1.0, depth))
    return found


_BUILDERS: dict[str, Callable[[Model, _Graph], None]] = {
    "isolation-forest": _forest,
    "covariance": _covariance,
    "pca": _pca,
    "one-class-svm": _svm,
}
