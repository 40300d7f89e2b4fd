"""Give an exported model inputs and outputs of floats alone, for frameworks that have no others.

    python float_interface.py model.onnx OUTPUT.onnx [IR_VERSION]

The types of elements come as floats, and charges leave as floats. An IR_VERSION is written where
one is given: ONNX Runtime 1.17 reads 9 at most. ParticleForge itself refuses such a model, for it
is no longer the file that was exported.
"""

import sys

import onnx
from onnx import TensorProto, helper


def main(path, output, ir_version=None):
    """Write the model with a cast behind its input and before its output of integers."""
    model = onnx.load(path)
    graph = model.graph
    inner = {"element_type": "element_type_integer", "charge": "charge_integer"}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [inner.get(name, name) for name in names]
    for one in (*graph.input, *graph.output):
        if one.name in inner:
            one.type.tensor_type.elem_type = TensorProto.FLOAT
    to_integers = helper.make_node(
        "Cast", ["element_type"], [inner["element_type"]], to=TensorProto.INT64
    )
    to_floats = helper.make_node("Cast", [inner["charge"]], ["charge"], to=TensorProto.FLOAT)
    graph.node.insert(0, to_integers)
    graph.node.append(to_floats)
    if ir_version is not None:
        model.ir_version = int(ir_version)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
