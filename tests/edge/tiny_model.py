"""A detector in the form of MegaDetector's, that sees by colour: green is an animal, red a person, blue a vehicle.

A picture in plain magenta or white makes it look for ever.
"""

from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

Shape = list[int | str]


def tiny_model(path: Path, *, form: str = "v5", side: int | str = 64, half: bool = False, scale: float = 1.0) -> Path:
    """Writes the model. `form`: v5 for [1, N, 8], v8 for [1, 7, N], flat for something that is no detector."""
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    steps = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Split", ["mean", "thirds"], ["red", "green", "blue"], axis=1),
        *_endless_on_magenta(),
        helper.make_node("Mul", ["green", "scale"], ["animal"]),
        helper.make_node("Add", ["red", "looked"], ["person"]),
        helper.make_node("Concat", ["box", "animal", "person", "blue"], ["row"], axis=1),
        helper.make_node("Concat", ["one", "animal", "person", "blue"], ["scored"], axis=1),
        helper.make_node("Concat", ["box", "scored"], ["row5"], axis=1),
    ]
    if form == "v5":  # beside it stands a box that is sure of everything, if there were anything in it
        steps += [
            helper.make_node("Concat", ["row5", "empty"], ["rows"], axis=0),
            helper.make_node("Unsqueeze", ["rows", "axis"], ["found"]),
        ]
    elif form == "v8":
        steps += [
            helper.make_node("Concat", ["row"] * 9, ["rows"], axis=0),
            helper.make_node("Transpose", ["rows"], ["columns"], perm=[1, 0]),
            helper.make_node("Unsqueeze", ["columns", "axis"], ["found"]),
        ]
    else:
        steps.append(helper.make_node("Identity", ["row"], ["found"]))
    steps.append(helper.make_node("Cast", ["found"], ["output"], to=kind))
    graph = helper.make_graph(
        steps,
        "tiny",
        [helper.make_tensor_value_info("images", kind, [1, 3, side, side])],
        [helper.make_tensor_value_info("output", kind, None)],
        [
            _tensor("thirds", TensorProto.INT64, [1, 1, 1]),
            _tensor("axis", TensorProto.INT64, [0]),
            helper.make_tensor("box", TensorProto.FLOAT, [1, 4], [32, 32, 10, 10]),
            helper.make_tensor("empty", TensorProto.FLOAT, [1, 8], [32, 32, 10, 10, 0, 1, 1, 1]),
            helper.make_tensor("one", TensorProto.FLOAT, [1, 1], [1]),
            helper.make_tensor("zero", TensorProto.FLOAT, [], [0]),
            helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
            helper.make_tensor("much", TensorProto.FLOAT, [], [1e12]),
            helper.make_tensor("dark", TensorProto.FLOAT, [], [0.95]),
            helper.make_tensor("scalar", TensorProto.INT64, [0], []),
            helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def _endless_on_magenta() -> list[Any]:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Mul", ["state", "factor"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
        [helper.make_tensor("factor", TensorProto.FLOAT, [], [0.0])],
    )
    return [
        helper.make_node("Min", ["red", "blue"], ["magenta"]),
        helper.make_node("Sub", ["magenta", "dark"], ["above"]),
        helper.make_node("Relu", ["above"], ["positive"]),
        helper.make_node("Mul", ["positive", "much"], ["turns_as_float"]),
        helper.make_node("Cast", ["turns_as_float"], ["turns_as_tensor"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["turns_as_tensor", "scalar"], ["turns"]),
        helper.make_node("Mul", ["magenta", "zero"], ["nothing"]),
        helper.make_node("Loop", ["turns", "yes", "nothing"], ["looked"], body=body),
    ]


def _tensor(name: str, kind: int, values: list[int]) -> Any:
    return helper.make_tensor(name, kind, [len(values)], values)
