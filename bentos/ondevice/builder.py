"""Writes ONNX graphs as one writes NumPy: `g.Add(g.MatMul(a, b), 1.0)`. What they compute is left to `graphs`."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR = 18, 9
"""ONNX Runtime understands these from 1.14 on."""
INT, FLOAT, DOUBLE, BOOL = TensorProto.INT64, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BOOL
Form = Literal["float32", "float16", "int8"]
Value = str | npt.ArrayLike
"""The name of what a node gives, or a constant."""
Shaped = tuple[int, Sequence[int | str]]
"""Element type and shape; a word is a size that varies."""


class Graph:
    """A graph in the making. A method with the name of an operator adds a node and returns its output's name."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._held: list[onnx.TensorProto] = []
        self._forms: dict[str, Form] = {}

    def __getattr__(self, operator: str) -> Callable[..., str]:
        if not operator[:1].isupper():
            raise AttributeError(operator)

        def add(*inputs: Value, **attributes: Any) -> str:
            return self.node(operator, inputs, 1, **attributes)[0]

        return add

    def node(self, operator: str, inputs: Sequence[Value], outputs: int, **attributes: Any) -> list[str]:
        """Add a node with so many outputs; their names."""
        names = [f"{operator}_{len(self._nodes)}_{n}" for n in range(outputs)]
        given = [value if isinstance(value, str) else self.held(value) for value in inputs]
        self._nodes.append(helper.make_node(operator, given, names, **attributes))
        return names

    def held(self, constant: npt.ArrayLike, name: str | None = None) -> str:
        """The name of a constant: integers as int64, floats as float32, NumPy's arrays as they are."""
        array = np.asarray(constant)
        if not isinstance(constant, np.ndarray | np.generic):
            array = array.astype(np.float32 if array.dtype.kind == "f" else array.dtype)
        name = name or f"constant_{len(self._held)}"
        self._held.append(numpy_helper.from_array(array, name))
        return name

    def table(self, name: str, rows: npt.NDArray[np.float32], form: Form) -> str:
        """Hold floats [n, ...] in a form; int8 with a scale for each row. Read it with `rows` or `whole`."""
        self._forms[name] = form
        if form == "int8":
            scale = np.maximum(np.abs(rows).max(1, keepdims=True), np.float32(1e-12)) / np.float32(127)
            self.held(scale, f"{name}_scale")
            return self.held(np.round(rows / scale).astype(np.int8), name)
        return self.held(rows.astype(form), name)

    def rows(self, table: str, index: str) -> str:
        """Some rows of a table, as float32."""
        return self._floats(table, lambda held: self.Gather(held, index))

    def whole(self, table: str) -> str:
        """A table as float32; a runtime makes it once, when it loads the graph."""
        return self._floats(table, lambda held: held)

    def _floats(self, table: str, read: Callable[[str], str]) -> str:
        if self._forms[table] == "float32":
            return read(table)
        plain = self.Cast(read(table), to=FLOAT)
        return self.Mul(plain, read(f"{table}_scale")) if self._forms[table] == "int8" else plain

    def model(self, name: str, inputs: dict[str, Shaped], outputs: dict[str, tuple[str, Shaped]]) -> onnx.ModelProto:
        """The checked model. `inputs`: (type, shape) by name; `outputs`: the same beside the value that it is."""
        nodes = [*self._nodes, *(helper.make_node("Identity", [made], [out]) for out, (made, _) in outputs.items())]
        graph = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info(given, *shaped) for given, shaped in inputs.items()],
            [helper.make_tensor_value_info(out, *shaped) for out, (_, shaped) in outputs.items()],
            self._held,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        made.producer_name = "freshet"
        onnx.checker.check_model(made)
        return made
