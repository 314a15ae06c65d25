"""Makes the ONNX files of this folder, and what onnxruntime computes from them.

    python make.py

Each NAME.onnx has a NAME.npz beside it with inputs `x` (three samples) and outputs `y`; several inputs and outputs have their
names. Those in `quantised` compute the same up to quantisation. Needs numpy, onnx and onnxruntime.
The files of the repository were made with onnx 1.23.2 and onnxruntime 1.32.0.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

HERE = Path(__file__).parent
RANDOM = np.random.default_rng(7)


def weights(*shape, scale=None):
    fan_in = int(np.prod(shape[1:])) or 1
    scale = scale or (2 / fan_in) ** 0.5
    return (RANDOM.standard_normal(shape) * scale).astype(np.float32)


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs, [output], name=f"make_{output}", **attributes)


def ints(*values):
    return np.array(values, np.int64)


def model(nodes, input_shape, initializers, opset, output="y", batch="N", raw=True, output_shape=("classes",)):
    tensors = []
    for name, value in initializers.items():
        if isinstance(value, TensorProto):
            tensors.append(value)
        elif raw:
            tensors.append(numpy_helper.from_array(value, name))
        else:
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            tensors.append(helper.make_tensor(name, kind, value.shape, value.ravel().tolist()))
    graph = helper.make_graph(
        nodes,
        "golden",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*([] if batch is None else [batch]), *input_shape])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [*([] if batch is None else [batch]), *output_shape])],
        tensors,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=min(10, 3 + opset // 2)
    )


def residual():
    """Convolution, normalisation, residual sum, ReLU6, global mean, Gemm: opset 13."""
    w = {
        "conv1.weight": weights(4, 3, 3, 3),
        "scale": np.abs(weights(4, scale=1)) + 0.5,
        "shift": weights(4, scale=1),
        "mean": weights(4, scale=1),
        "var": np.abs(weights(4, scale=1)) + 0.5,
        "conv2.weight": weights(4, 4, 3, 3),
        "conv2.bias": weights(4, scale=1),
        "depthwise": weights(4, 1, 3, 3),
        "low": np.float32(0),
        "high": np.float32(6),
        "fc.weight": weights(5, 4),
        "fc.bias": weights(5, scale=1),
    }
    nodes = [
        node("Conv", ["x", "conv1.weight"], "a", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["a", "scale", "shift", "mean", "var"], "b", epsilon=1e-3),
        node("Relu", ["b"], "c"),
        node("Conv", ["c", "conv2.weight", "conv2.bias"], "d", auto_pad="SAME_UPPER"),
        node("Add", ["d", "c"], "e"),
        node("Clip", ["e", "low", "high"], "f"),
        node("Conv", ["f", "depthwise"], "g", group=4, strides=[2, 2], pads=[0, 1, 1, 0]),
        node("GlobalAveragePool", ["g"], "h"),
        node("Flatten", ["h"], "i"),
        node("Gemm", ["i", "fc.weight", "fc.bias"], "y", transB=1, alpha=0.5, beta=2.0),
    ]
    return model(nodes, [3, 6, 7], w, 13)


def perceptron():
    """MatMul and Add, activations, Softmax, weights as typed data, a fixed batch: opset 9."""
    w = {"w1": weights(12, 8, scale=0.3), "b1": weights(8, scale=1), "w2": weights(8, 6, scale=0.3), "c": weights(6, scale=1)}
    nodes = [
        node("Constant", [], "shape", value=numpy_helper.from_array(ints(3, 12))),
        node("Reshape", ["x", "shape"], "flat"),
        node("MatMul", ["flat", "w1"], "a"),
        node("Add", ["a", "b1"], "b"),
        node("Tanh", ["b"], "c1"),
        node("Dropout", ["c1"], "d"),
        node("MatMul", ["d", "w2"], "e"),
        node("Mul", ["e", "c"], "f"),
        node("Sigmoid", ["f"], "g"),
        node("Softmax", ["g"], "y", axis=1),
    ]
    return model(nodes, [3, 4], w, 9, batch=3, raw=False)


def shape_chain():
    """Flattening through Shape, Gather, Unsqueeze and Concat, as PyTorch writes view(x.size(0), -1); a transposed weight: opset 11."""
    w = {"w": weights(5, 12), "zero": ints(0), "minus": ints(-1)}
    w["zero"] = np.int64(0)
    nodes = [
        node("MaxPool", ["x"], "p", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        node("Shape", ["p"], "s"),
        node("Gather", ["s", "zero"], "n", axis=0),
        node("Unsqueeze", ["n"], "n1", axes=[0]),
        node("Concat", ["n1", "minus"], "target", axis=0),
        node("Reshape", ["p", "target"], "flat"),
        node("Transpose", ["w"], "wt", perm=[1, 0]),
        node("Gemm", ["flat", "wt"], "g"),
        node("LeakyRelu", ["g"], "y", alpha=0.2),
    ]
    return model(nodes, [2, 4, 5], w, 11)


def mobile():
    """Squeeze and excitation, hard activations, concatenation, asymmetric and dilated convolution, Pad: opset 17."""
    w = {
        "stem": weights(6, 3, 3, 3),
        "down": weights(2, 6, 1, 1),
        "up": weights(6, 2, 1, 1),
        "up.bias": weights(6, scale=1),
        "left": weights(3, 6, 1, 3),
        "pads": ints(0, 0, 2, 0, 0, 0, 0, 0),
        "mean": np.array([0.4, 0.5, 0.6], np.float32).reshape(1, 3, 1, 1),
        "std": np.array([0.2, 0.3, 0.25], np.float32).reshape(1, 3, 1, 1),
        "border": np.float32(0.25),
    }
    nodes = [
        node("Sub", ["x", "mean"], "x1"),
        node("Div", ["x1", "std"], "x2"),
        node("Conv", ["x2", "stem"], "a", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("HardSwish", ["a"], "b"),
        node("ReduceMean", ["b"], "m", axes=[2, 3], keepdims=1),
        node("Conv", ["m", "down"], "m1"),
        node("Relu", ["m1"], "m2"),
        node("Conv", ["m2", "up", "up.bias"], "m3"),
        node("HardSigmoid", ["m3"], "gate", alpha=1 / 6, beta=0.5),
        node("Mul", ["gate", "b"], "c"),
        node("Conv", ["c", "left"], "l", pads=[0, 2, 0, 2], dilations=[1, 2]),
        node("Pad", ["c", "pads", "border"], "padded"),
        node("AveragePool", ["padded"], "r", kernel_shape=[3, 3], pads=[0, 1, 0, 1], count_include_pad=1),
        node("Concat", ["l", "r"], "j", axis=1),
        node("MaxPool", ["j"], "k", kernel_shape=[2, 2]),
        node("ReduceMean", ["k"], "y", axes=[2, 3], keepdims=0),
    ]
    return model(nodes, [3, 9, 8], w, 17)


def sparse():
    """A sparse initializer, Gelu in both forms, Identity, Squeeze and Unsqueeze: opset 20."""
    dense = weights(6, 10)
    dense[RANDOM.random(dense.shape) < 0.8] = 0
    places = np.flatnonzero(dense)
    values = helper.make_tensor("w", TensorProto.FLOAT, [len(places)], dense.ravel()[places].tolist())
    indices = helper.make_tensor("", TensorProto.INT64, [len(places)], places.tolist())
    nodes = [
        node("Identity", ["x"], "x1"),
        node("Unsqueeze", ["x1", "axes"], "u"),
        node("Gelu", ["u"], "g"),
        node("Squeeze", ["g", "axes"], "s"),
        node("Gemm", ["s", "w"], "h", transB=1),
        node("Gelu", ["h"], "y", approximate="tanh"),
    ]
    made = model(nodes, [10], {"axes": ints(2)}, 20)
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [6, 10]))
    return made


def half():
    """Weights in half precision, cast when the network runs; the mean by ReduceMean with axes as input: opset 18."""
    w = {"w": weights(4, 2, 3, 3).astype(np.float16), "axes": ints(-1, -2)}
    nodes = [
        node("Cast", ["w"], "w32", to=TensorProto.FLOAT),
        node("Conv", ["x", "w32"], "a", auto_pad="SAME_LOWER", strides=[2, 2]),
        node("Neg", ["a"], "b"),
        node("Relu", ["b"], "c"),
        node("ReduceMean", ["c", "axes"], "y", keepdims=0),
    ]
    return model(nodes, [2, 7, 6], w, 18)


def spelled(opset):
    """One network whose operators say the same in the words of that opset: attributes that became inputs, defaults that moved."""

    def attributes_or_inputs(op, inputs, output, since, **words):
        """`words` as attributes, or from opset `since` on as inputs in their order."""
        if opset < since:
            return node(op, inputs, output, **words)
        names = [f"{output}.{word}" for word in words]
        w.update({name: np.array(value) for name, value in zip(names, words.values())})
        return node(op, [*inputs, *names], output)

    w = {
        "conv": weights(4, 2, 3, 3),
        "scale": np.abs(weights(4, scale=1)) + 0.5,
        "shift": weights(4, scale=1),
        "mean": weights(4, scale=1),
        "var": np.abs(weights(4, scale=1)) + 0.5,
        "minus": ints(-1),
        "fc": weights(3, 52),
        "fc.bias": weights(3, scale=1),
    }
    float32 = np.float32
    norm = {"spatial": 1} if opset < 9 else {"training_mode": 0} if opset >= 14 else {}
    mask = ["d", "mask"]
    if opset < 12:
        dropout = helper.make_node("Dropout", ["c"], mask, name="make_d", ratio=0.5)
    else:
        w.update({"ratio": float32(0.5), "training": np.bool_(False)})
        dropout = helper.make_node("Dropout", ["c", "ratio", "training"], mask, name="make_d")
    if opset < 18:
        pad = attributes_or_inputs("Pad", ["d"], "e", 11, pads=[0, 0, 1, 0, 0, 0, 1, 1], value=float32(0.25))
    else:
        w.update({"pads": ints(1, 0, 1, 1), "value": float32(0.25), "over": ints(2, 3)})
        pad = node("Pad", ["d", "pads", "value", "over"], "e")
    # Before opset 13 the default axis is the first behind the batch, and all behind it count as one; then it is the last.
    if opset < 13:
        shares = [node("Unsqueeze", ["g"], "u", axes=[2, 3]), node("Softmax", ["u"], "v")]
    else:
        w["places"] = ints(2, 3)
        shares = [node("Softmax", ["g"], "u"), node("Unsqueeze", ["u", "places"], "v")]
    nodes = [
        node("Conv", ["x", "conv"], "a", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["a", "scale", "shift", "mean", "var"], "b", **norm),
        attributes_or_inputs("Clip", ["b"], "c", 11, min=float32(-0.5), max=float32(0.75)),
        dropout,
        pad,
        node("MaxPool", ["e"], "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", ["p"], "s"),
        attributes_or_inputs("Slice", ["s"], "n", 10, starts=ints(0), ends=ints(1), axes=ints(0)),
        node("Concat", ["n", "minus"], "target", axis=0),
        node("Reshape", ["p", "target"], "f"),
        attributes_or_inputs("ReduceMean", ["d"], "m", 18, axes=ints(2, 3)),
        attributes_or_inputs("Squeeze", ["m"], "m1", 13, axes=ints(2, 3)),
        node("Concat", ["f", "m1"], "j", axis=1),
        node("Gemm", ["j", "fc", "fc.bias"], "g", transB=1),
        *shares,
        attributes_or_inputs("Squeeze", ["v"], "y", 13, axes=ints(2, 3)),
    ]
    made = model(nodes, [2, 6, 5], w, opset)
    if opset < 9:
        # Files of that time list initializers among the inputs.
        made.ir_version = 3
        kinds = [(t.name, t.data_type, t.dims) for t in made.graph.initializer]
        made.graph.input.extend(helper.make_tensor_value_info(*kind) for kind in kinds)
    return made


def flat_to_image():
    """A vector that becomes an image before the first layer: opset 13."""
    nodes = [
        node("Reshape", ["x", "shape"], "image"),
        node("Conv", ["image", "w"], "a", pads=[1, 1, 1, 1]),
        node("ReduceMax", ["a"], "y", axes=[2, 3], keepdims=0),
    ]
    return model(nodes, [64], {"shape": ints(-1, 1, 8, 8), "w": weights(4, 1, 3, 3)}, 13)


def one_channel_last():
    """Images [8, 8, 1], transposed: opset 13."""
    nodes = [
        node("Transpose", ["x"], "image", perm=[0, 3, 1, 2]),
        node("Conv", ["image", "w"], "y", strides=[2, 2]),
    ]
    return model(nodes, [8, 8, 1], {"w": weights(2, 1, 3, 3)}, 13, output_shape=(2, 3, 3))


def channels_last():
    """As Keras exports: normalised images [5, 6, 3] with a border, transposed for convolutions and back for all else: opset 13."""
    w = {
        "mean": np.array([0.4, 0.5, 0.6], np.float32),
        "std": np.array([0.2, 0.3, 0.25], np.float32),
        "pads": ints(0, 0, 1, 0, 0, 1, 1, 0),
        "stem": weights(4, 3, 3, 3),
        "stem.bias": weights(4, scale=1),
        "left": weights(2, 4, 1, 1),
        "right": weights(3, 4, 1, 1),
        "flat": ints(-1, 160),
        "fc": weights(160, 5, scale=0.1),
        "wide": weights(5, 5, scale=0.3),
    }
    first = {"perm": [0, 3, 1, 2]}
    last = {"perm": [0, 2, 3, 1]}
    nodes = [
        node("Sub", ["x", "mean"], "x1"),
        node("Div", ["x1", "std"], "x2"),
        node("Pad", ["x2", "pads"], "x3"),
        node("Transpose", ["x3"], "x4", **first),
        node("Conv", ["x4", "stem"], "a", pads=[0, 1, 0, 1]),
        node("Transpose", ["a"], "a1", **last),
        node("Add", ["a1", "stem.bias"], "a2"),
        node("Relu", ["a2"], "a3"),
        node("Transpose", ["a3"], "a4", **first),
        node("Conv", ["a4", "left"], "l"),
        node("Transpose", ["l"], "l1", **last),
        node("Conv", ["a4", "right"], "r"),
        node("Transpose", ["r"], "r1", **last),
        node("Concat", ["l1", "r1"], "j", axis=3),
        node("ReduceMean", ["j"], "m", axes=[1, 2], keepdims=1),
        node("Sigmoid", ["m"], "gate"),
        node("Mul", ["j", "gate"], "k"),
        node("Reshape", ["k", "flat"], "f"),
        node("MatMul", ["f", "fc"], "g"),
        node("ReduceMean", ["k"], "mm", axes=[1, 2], keepdims=0),
        node("MatMul", ["mm", "wide"], "h"),
        node("Sum", ["g", "h", "g"], "y"),
    ]
    return model(nodes, [5, 6, 3], w, 13)


def constants_of_each_element():
    """Constants with leading dimensions of one, one number per element, beside inputs [1, 1, 5]: opset 8."""
    w = {"mean": weights(1, 1, 1, 5, scale=1), "std": np.abs(weights(5, scale=1)) + 0.5, "w": weights(5, 4)}
    nodes = [
        node("Sub", ["x", "mean"], "a"),
        node("Div", ["a", "std"], "b"),
        node("Flatten", ["b"], "f"),
        node("MatMul", ["f", "w"], "y"),
    ]
    return model(nodes, [1, 1, 5], w, 8)


def softmax_of_map():
    """Softmax over channels of maps of one pixel, which are the output, as SqueezeNet has it: opset 9."""
    nodes = [node("GlobalAveragePool", ["x"], "g"), node("Softmax", ["g"], "y")]
    return model(nodes, [4, 2, 3], {}, 9, output_shape=(4, 1, 1))


def open_size():
    """Height and width are not known: opset 13."""
    nodes = [
        node("Conv", ["x", "w"], "a", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["a"], "g"),
        node("Flatten", ["g"], "y"),
    ]
    return model(nodes, [3, "height", "width"], {"w": weights(4, 3, 3, 3)}, 13)


def column():
    """Images as columns [12, 1]: opset 13."""
    nodes = [node("Flatten", ["x"], "f"), node("Gemm", ["f", "w"], "y", transB=1)]
    return model(nodes, [12, 1], {"w": weights(3, 12)}, 13)


def one_dimension():
    """Convolution, normalisation and pooling over signals [2, 16]: opset 17."""
    w = {
        "conv1": weights(4, 2, 3),
        "scale": np.abs(weights(4, scale=1)) + 0.5,
        "shift": weights(4, scale=1),
        "mean": weights(4, scale=1),
        "var": np.abs(weights(4, scale=1)) + 0.5,
        "conv2": weights(6, 2, 3),
        "bias": weights(6, scale=1),
        "pads": ints(0, 0, 1, 0, 0, 2),
        "fc": weights(18, 3),
    }
    nodes = [
        node("Conv", ["x", "conv1"], "a", pads=[1, 1]),
        node("BatchNormalization", ["a", "scale", "shift", "mean", "var"], "b"),
        node("Relu", ["b"], "c"),
        node("MaxPool", ["c"], "d", kernel_shape=[2], strides=[2]),
        node("Pad", ["d", "pads"], "e"),
        node("Conv", ["e", "conv2", "bias"], "f", group=2, dilations=[2]),
        node("AveragePool", ["f"], "g", kernel_shape=[3], strides=[2], pads=[1, 0], count_include_pad=1),
        node("Flatten", ["g"], "h"),
        node("MatMul", ["h", "fc"], "y"),
    ]
    return model(nodes, [2, 16], w, 17)


def no_batch():
    """One vector without a batch: opset 13."""
    w = {"w": weights(6, 4), "b": weights(4, scale=1), "v": weights(4, scale=1)}
    nodes = [
        node("MatMul", ["x", "w"], "a"),
        node("Add", ["a", "b"], "c"),
        node("Tanh", ["c"], "d"),
        node("Mul", ["d", "v"], "y"),
    ]
    return model(nodes, [6], w, 13, batch=None)


def elementwise():
    """Operators that become several, or others: opset 17."""
    w = {
        "slope": weights(3, 1, 1, scale=1),
        "one": weights(1, scale=1),
        "two": np.float32(2),
        "three": ints(3),
        "low": np.full((3, 1, 1), -0.5, np.float32),
        "high": np.float32(0.75),
        "above": np.abs(weights(3, 1, 1, scale=1)) + 0.5,
        "shift": weights(3, 4, 5, scale=1),
    }
    nodes = [
        node("PRelu", ["x", "slope"], "a"),
        node("PRelu", ["x", "one"], "b"),
        node("Abs", ["x"], "c"),
        node("Softsign", ["x"], "d"),
        node("Pow", ["x", "two"], "e"),
        node("Pow", ["x", "three"], "f"),
        node("Max", ["x", "low"], "g1"),
        node("Min", ["high", "g1"], "g"),
        node("Sigmoid", ["x"], "s"),
        node("Div", ["above", "s"], "h"),
        node("Reciprocal", ["s"], "i"),
        node("Mean", ["c", "d", "a", "high"], "j"),
        node("Shrink", ["x"], "k", lambd=0.5, bias=0.5),
        node("ReduceL1", ["x"], "l", axes=[2, 3]),
        node("ReduceSumSquare", ["x"], "m", axes=[-1, -2]),
        node("ReduceMin", ["x"], "n", axes=[2, 3]),
        node("Sum", ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"], "o"),
        node("Sum", ["l", "m"], "p"),
        node("Mul", ["o", "p"], "q"),
        node("Add", ["q", "n"], "r"),
        node("Sub", ["r", "shift"], "y"),
    ]
    return model(nodes, [3, 4, 5], w, 17, output_shape=(3, 4, 5))


def several():
    """Two inputs and three outputs, of which one has further readers: opset 17."""
    w = {
        "conv.weight": weights(4, 3, 3, 3),
        "embed.weight": weights(4, 5),
        "fc.weight": weights(6, 8),
        "fc.bias": weights(6, scale=1),
    }
    nodes = [
        node("Conv", ["image", "conv.weight"], "map", pads=[1, 1, 1, 1]),
        node("Relu", ["map"], "features"),
        node("GlobalAveragePool", ["features"], "means"),
        node("Flatten", ["means"], "vector"),
        node("Gemm", ["context", "embed.weight"], "embedded", transB=1),
        node("Concat", ["vector", "embedded"], "both", axis=1),
        node("Gemm", ["both", "fc.weight", "fc.bias"], "scores", transB=1),
        node("Softmax", ["scores"], "probabilities", axis=1),
    ]
    value = lambda name, *dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *dims])
    graph = helper.make_graph(
        nodes,
        "several",
        [value("image", 3, 6, 5), value("context", 5)],
        [value("scores", 6), value("features", 4, 6, 5), value("probabilities", 6)],
        [numpy_helper.from_array(tensor, name) for name, tensor in w.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def sequence():
    """A sequence of any length beside a vector, products over the last axis, softmax along both axes: opset 17."""
    w = {
        "wide.weight": weights(12, 20),
        "wide.bias": weights(20, scale=1),
        "narrow.weight": weights(20, 12),
        "tags.weight": weights(32, 5),
        "tags.bias": weights(1, 5, scale=1),
        "topic.weight": weights(3, 7),
    }
    nodes = [
        node("MatMul", ["words", "wide.weight"], "product"),
        node("Add", ["wide.bias", "product"], "wide"),
        node("Relu", ["wide"], "active"),
        node("MatMul", ["active", "narrow.weight"], "narrow"),
        node("Add", ["narrow", "words"], "sum"),
        node("Softmax", ["sum"], "over_words", axis=1),
        node("Tanh", ["wide"], "each"),
        node("Concat", ["over_words", "each"], "both", axis=2),
        node("MatMul", ["both", "tags.weight"], "scores"),
        node("Add", ["scores", "tags.bias"], "biased"),
        node("Softmax", ["biased"], "tags", axis=-1),
        node("Gemm", ["context", "topic.weight"], "topic", transB=1),
    ]
    value = lambda name, *dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *dims])
    graph = helper.make_graph(
        nodes,
        "sequence",
        [value("words", "length", 12), value("context", 7)],
        [value("tags", "length", 5), value("topic", 3)],
        [numpy_helper.from_array(tensor, name) for name, tensor in w.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def layer_normalization():
    """LayerNormalization of maps, of rows, of one channel's pixels with a scale that is broadcast, and of vectors: opset 17."""
    w = {
        "conv": weights(4, 3, 3, 3),
        "maps.scale": weights(4, 5, 6, scale=1),
        "rows.scale": weights(6, scale=1),
        "rows.bias": weights(6, scale=1),
        "pixels.scale": weights(5, 1, scale=1),
        "pixels.bias": weights(1, scale=1),
        "fc": weights(7, 120),
        "vector.scale": weights(7, scale=1),
        "vector.bias": weights(7, scale=1),
    }
    nodes = [
        node("Conv", ["x", "conv"], "a", pads=[1, 1, 1, 1]),
        node("LayerNormalization", ["a", "maps.scale"], "b", axis=1),
        node("Relu", ["b"], "c"),
        node("LayerNormalization", ["c", "rows.scale", "rows.bias"], "d", epsilon=1e-2),
        node("LayerNormalization", ["d", "pixels.scale", "pixels.bias"], "e", axis=-2),
        node("Flatten", ["e"], "f"),
        node("Gemm", ["f", "fc"], "g", transB=1),
        node("LayerNormalization", ["g", "vector.scale", "vector.bias"], "y", axis=1),
    ]
    return model(nodes, [3, 5, 6], w, 17)


def prelu():
    """PRelu with slopes of channels, of all, of pixels and of the last axis, over maps and a vector: opset 17."""
    w = {
        "conv": weights(4, 3, 3, 3),
        "channels": weights(4, 1, 1, scale=1),
        "one": weights(1, scale=1),
        "last": weights(4, scale=1),
        "pixels": weights(5, 6, 1, scale=1),
        "fc": weights(7, 120),
        "vector": weights(7, scale=1),
    }
    nodes = [
        node("Conv", ["x", "conv"], "a", pads=[1, 1, 1, 1]),
        node("PRelu", ["a", "channels"], "b"),
        node("PRelu", ["b", "one"], "c"),
        node("Transpose", ["c"], "d", perm=[0, 2, 3, 1]),
        node("PRelu", ["d", "last"], "e"),
        node("PRelu", ["e", "pixels"], "f"),
        node("Flatten", ["f"], "g"),
        node("Gemm", ["g", "fc"], "h", transB=1),
        node("PRelu", ["h", "vector"], "y"),
    ]
    return model(nodes, [3, 5, 6], w, 17)


def decomposed():
    """Layer normalisations, GELUs and a softmax as exporters write them without operators of their own: opset 13.

    The first half is PyTorch's form, the second that of JAX by tf2onnx.
    """
    number = lambda v, *dims: np.full(dims, v, np.float32)
    w = {
        "torch.scale": weights(8, scale=1),
        "torch.bias": weights(8, scale=1),
        "two": number(2),
        "epsilon": number(1e-5),
        "fc1": weights(8, 8),
        "fc1.bias": weights(8),
        "root": number(2**0.5),
        "one": number(1),
        "half": number(0.5),
        "axis": ints(2),
        "eighth": number(1 / 8),
        "zero": number(0),
        "0": ints(0),
        "1": ints(1),
        "rows": ints(6),
        "jax.epsilon": number(1e-6),
        "jax.scale": weights(1, 1, 8, scale=1),
        "jax.bias": weights(1, 1, 8, scale=1),
        "fc2": weights(8, 5),
        "cube": number(0.044715, 1, 1, 1),
        "scale": number((2 / np.pi) ** 0.5),
        "least": number(-np.inf),
        "fc3": weights(30, 4),
    }
    torch = [
        node("ReduceMean", ["x"], "mean", axes=[-1]),
        node("Sub", ["x", "mean"], "centred"),
        node("Pow", ["centred", "two"], "squares"),
        node("ReduceMean", ["squares"], "variance", axes=[-1]),
        node("Add", ["variance", "epsilon"], "shifted"),
        node("Sqrt", ["shifted"], "deviation"),
        node("Div", ["centred", "deviation"], "normal"),
        node("Mul", ["normal", "torch.scale"], "scaled"),
        node("Add", ["scaled", "torch.bias"], "a"),
        node("MatMul", ["a", "fc1"], "fc"),
        node("Add", ["fc", "fc1.bias"], "b"),
        node("Div", ["b", "root"], "b.root"),
        node("Erf", ["b.root"], "b.erf"),
        node("Add", ["b.erf", "one"], "b.gate"),
        node("Mul", ["b", "b.gate"], "b.twice"),
        node("Mul", ["b.twice", "half"], "c"),
    ]
    shape = [
        node("Shape", ["x"], "x.shape"),
        node("Slice", ["x.shape", "0", "1", "0"], "batch"),
        node("Concat", ["batch", "rows", "1"], "column", axis=0),
    ]
    jax = [
        node("ReduceSum", ["c", "axis"], "sum", keepdims=0),
        node("Mul", ["sum", "eighth"], "c.mean"),
        node("Mul", ["c", "c"], "c.squares"),
        node("ReduceSum", ["c.squares", "axis"], "sum2", keepdims=0),
        node("Mul", ["sum2", "eighth"], "moment"),
        node("Mul", ["c.mean", "c.mean"], "mean2"),
        node("Sub", ["moment", "mean2"], "c.variance"),
        node("Max", ["zero", "c.variance"], "positive"),
        node("Reshape", ["positive", "column"], "v.column"),
        node("Expand", ["v.column", "column"], "v.rows"),
        node("Add", ["v.rows", "jax.epsilon"], "v.shifted"),
        node("Sqrt", ["v.shifted"], "v.root"),
        node("Reciprocal", ["v.root"], "v.inverse"),
        node("Mul", ["v.inverse", "jax.scale"], "v.scale"),
        node("Reshape", ["c.mean", "column"], "m.column"),
        node("Expand", ["m.column", "column"], "m.rows"),
        node("Sub", ["c", "m.rows"], "c.centred"),
        node("Mul", ["c.centred", "v.scale"], "c.scaled"),
        node("Add", ["c.scaled", "jax.bias"], "d"),
        node("MatMul", ["d", "fc2"], "e"),
        node("Mul", ["cube", "e"], "e.cube"),
        node("Mul", ["e", "e.cube"], "e.cube2"),
        node("Mul", ["e", "e.cube2"], "e.cube3"),
        node("Add", ["e", "e.cube3"], "e.sum"),
        node("Mul", ["scale", "e.sum"], "e.inner"),
        node("Tanh", ["e.inner"], "e.tanh"),
        node("Add", ["one", "e.tanh"], "e.gate"),
        node("Mul", ["half", "e.gate"], "e.half"),
        node("Mul", ["e", "e.half"], "f"),
        node("ReduceMax", ["f"], "f.max", axes=[2], keepdims=0),
        node("Max", ["least", "f.max"], "f.most"),
        node("Reshape", ["f.most", "column"], "f.column"),
        node("Expand", ["f.column", "column"], "f.rows"),
        node("Sub", ["f", "f.rows"], "f.less"),
        node("Exp", ["f.less"], "f.exp"),
        node("ReduceSum", ["f.exp", "axis"], "f.sum", keepdims=0),
        node("Reshape", ["f.sum", "column"], "s.column"),
        node("Expand", ["s.column", "column"], "s.rows"),
        node("Div", ["f.exp", "s.rows"], "g"),
        node("Flatten", ["g"], "h"),
        node("MatMul", ["h", "fc3"], "y"),
    ]
    return model(torch + shape + jax, [6, 8], w, 13)


def moved():
    """Numbers that move: a channel shuffle, a block over channels last, a normalisation over channels first, an output in another order: opset 17."""
    w = {
        "conv1": weights(4, 4, 3, 3),
        "groups": ints(0, 2, 2, 6, 5),
        "map": ints(0, 4, 6, 5),
        "conv2": weights(4, 1, 3, 3),
        "norm.scale": weights(4, scale=1),
        "norm.bias": weights(4, scale=1),
        "up": weights(4, 8),
        "up.bias": weights(8),
        "down": weights(8, 4),
        "two": np.full((), 2, np.float32),
        "epsilon": np.full((), 1e-6, np.float32),
        "channel.scale": weights(4, 1, 1, scale=1),
        "channel.bias": weights(4, 1, 1, scale=1),
    }
    nodes = [
        node("Conv", ["x", "conv1"], "a", pads=[1, 1, 1, 1]),
        node("Reshape", ["a", "groups"], "a.groups"),
        node("Transpose", ["a.groups"], "a.shuffled", perm=[0, 2, 1, 3, 4]),
        node("Reshape", ["a.shuffled", "map"], "b"),
        node("Conv", ["b", "conv2"], "c", pads=[1, 1, 1, 1], group=4),
        node("Transpose", ["c"], "last", perm=[0, 2, 3, 1]),
        node("LayerNormalization", ["last", "norm.scale", "norm.bias"], "normal"),
        node("MatMul", ["normal", "up"], "wide"),
        node("Add", ["wide", "up.bias"], "biased"),
        node("Relu", ["biased"], "relu"),
        node("MatMul", ["relu", "down"], "narrow"),
        node("Transpose", ["narrow"], "first", perm=[0, 3, 1, 2]),
        node("Add", ["b", "first"], "d"),
        node("ReduceMean", ["d"], "mean", axes=[1]),
        node("Sub", ["d", "mean"], "centred"),
        node("Pow", ["centred", "two"], "squares"),
        node("ReduceMean", ["squares"], "variance", axes=[1]),
        node("Add", ["variance", "epsilon"], "shifted"),
        node("Sqrt", ["shifted"], "deviation"),
        node("Div", ["centred", "deviation"], "even"),
        node("Mul", ["even", "channel.scale"], "scaled"),
        node("Add", ["scaled", "channel.bias"], "e"),
        node("Transpose", ["e"], "y", perm=[0, 3, 1, 2]),
    ]
    return model(nodes, [4, 6, 5], w, 17, output_shape=(5, 4, 6))


def ids():
    """Rows of tables by ids: Gather, OneHot and Equal with a product, over int64 and int32, a reshaped and a transposed input: opset 13."""
    w = {
        "words": weights(9, 4, scale=1),
        "bytes": weights(6, 4, scale=1),
        "kinds": weights(3, 4, scale=1),
        "pairs": ints(0, 2, 3),
        "depth": np.array(6, np.int64),
        "values": np.array([0, 1], np.float32),
        "column": ints(-1, 6, 1),
        "same": ints(1, 6, 1),
        "numbers": np.arange(3, dtype=np.int32).reshape(1, 1, 3),
        "bias": weights(4),
    }
    nodes = [
        node("Reshape", ["x", "pairs"], "x.pairs"),
        node("Transpose", ["x.pairs"], "x.turned", perm=[0, 2, 1]),
        node("Gather", ["words", "x.turned"], "a"),
        node("Reshape", ["a", "rows"], "a.rows"),
        node("OneHot", ["z", "depth", "values"], "z.hot", axis=-1),
        node("MatMul", ["z.hot", "bytes"], "b"),
        node("Reshape", ["k", "column"], "k.column"),
        node("Expand", ["k.column", "same"], "k.same"),
        node("Equal", ["k.same", "numbers"], "k.equal"),
        node("Cast", ["k.equal"], "k.hot", to=TensorProto.FLOAT),
        node("MatMul", ["k.hot", "kinds"], "c"),
        node("Add", ["a.rows", "b"], "d"),
        node("Add", ["d", "c"], "e"),
        node("Add", ["e", "bias"], "y"),
    ]
    w["rows"] = ints(0, 6, 4)
    built = model(nodes, [6], w, 13, output_shape=(6, 4))
    inputs = [("x", TensorProto.INT64), ("z", TensorProto.INT64), ("k", TensorProto.INT32)]
    del built.graph.input[:]
    built.graph.input.extend(helper.make_tensor_value_info(name, kind, ["N", 6]) for name, kind in inputs)
    return built


# Rows of the tables that integers number.
IDS = {"x": 9, "z": 6, "k": 3}


def computed():
    """Attention of two heads by products of computed values, and functions of an upsampled map: opset 18."""
    w = {
        "two": np.array([1, 1, 2, 2], np.float32),
        "heads": ints(0, 2, 3, 24),
        "map": ints(0, 6, 4, 6),
        "low": np.float32(0.1),
        "first": ints(0),
        "end": ints(3),
        "rows": ints(2),
        "last": ints(-1),
    }
    nodes = [
        node("Resize", ["x", "", "two"], "up", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        helper.make_node("Split", ["up"], ["query", "key", "value"], name="make_parts", axis=1, num_outputs=3),
        *(node("Reshape", [name, "heads"], name + "s") for name in ("query", "key", "value")),
        node("Transpose", ["keys"], "turned", perm=[0, 1, 3, 2]),
        node("MatMul", ["querys", "turned"], "scores"),
        node("LogSoftmax", ["scores"], "logarithms", axis=-1),
        node("Exp", ["logarithms"], "shares"),
        node("MatMul", ["shares", "values"], "attended"),
        node("ReduceL2", ["attended", "last"], "lengths"),
        node("Max", ["lengths", "low"], "bounded"),
        node("Div", ["attended", "bounded"], "unit"),
        node("Elu", ["unit"], "a", alpha=0.5),
        node("Softplus", ["a"], "b"),
        node("Log", ["b"], "c"),
        node("Erf", ["c"], "d"),
        node("Sqrt", ["b"], "e"),
        node("Selu", ["d"], "f"),
        node("Celu", ["c"], "g", alpha=0.7),
        node("Min", ["f", "e", "g"], "h"),
        node("ReduceLogSumExp", ["h", "last"], "sums"),
        node("Sub", ["h", "sums"], "i"),
        node("Reshape", ["i", "map"], "j"),
        node("Slice", ["j", "first", "end", "rows"], "k"),
        node("GlobalAveragePool", ["k"], "l"),
        node("Mul", ["k", "l"], "y"),
    ]
    return model(nodes, [18, 2, 3], w, 18, output_shape=(6, 3, 6))


def resized():
    """Maps of another size, linear, cubic and nearest, by scales and by sizes: opset 18."""
    w = {
        "scales": np.array([1, 1, 2, 2], np.float32),
        "uneven": np.array([1.5, 0.6], np.float32),
        "sizes": ints(7, 13),
    }
    half = dict(axes=[2, 3])
    nodes = [
        node("Resize", ["x", "", "scales"], "a", mode="linear"),
        node("Resize", ["a", "", "uneven"], "b", mode="cubic", coordinate_transformation_mode="asymmetric", **half),
        node("Resize", ["b", "", "", "sizes"], "c", mode="nearest", nearest_mode="ceil", **half),
        node("Resize", ["c", "", "uneven"], "d", mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5, **half),
        node("Resize", ["d", "", "", "sizes"], "e", mode="linear", coordinate_transformation_mode="align_corners", **half),
        node("Resize", ["e", "", "uneven"], "y", mode="linear", coordinate_transformation_mode="pytorch_half_pixel", **half),
    ]
    return model(nodes, [2, 4, 5], w, 18, output_shape=(2, 10, 7))


def transposed_convolutions():
    """Transposed convolutions: strides, pads, dilations, groups, a given output, one dimension: opset 13."""
    w = {
        "a.weight": weights(3, 4, 2, 2),
        "a.bias": weights(4, scale=1),
        "b.weight": weights(4, 3, 3, 4),
        "c.weight": weights(6, 2, 3, 3),
        "d.weight": weights(2, 1, 4, 3),
        "e.weight": weights(1, 2, 5),
        "row": ints(0, 1, -1),
    }
    nodes = [
        node("ConvTranspose", ["x", "a.weight", "a.bias"], "a", strides=[2, 2]),
        node("ConvTranspose", ["a", "b.weight"], "b", strides=[3, 2], pads=[1, 0, 2, 1], output_padding=[2, 1], group=2),
        node("ConvTranspose", ["b", "c.weight"], "c", dilations=[2, 3], pads=[1, 2, 3, 4]),
        node("ConvTranspose", ["c", "d.weight"], "d", strides=[2, 3], output_shape=[45, 66], auto_pad="SAME_UPPER"),
        node("Reshape", ["d", "row"], "r"),
        node("ConvTranspose", ["r", "e.weight"], "e", strides=[2], pads=[2, 2]),
        node("Relu", ["e"], "y"),
    ]
    return model(nodes, [3, 4, 5], w, 13, output_shape=(2, "n"))


def class_token():
    """A learned vector before those of the patches, expanded as exporters write it, and constants behind: opset 17."""
    w = {
        "patches": weights(6, 3, 2, 2),
        "token": weights(1, 1, 6, scale=1),
        "behind": weights(1, 2, 6, scale=1),
        "positions": weights(1, 7, 6, scale=1),
        "shape": ints(0, 6, -1),
        "first": ints(0),
        "ones": ints(1, 1, 1),
        "minus": ints(-1),
        "keep": ints(-1, -1),
        "one": ints(1),
        "big": ints(7),
        "modulus": ints(4),
        "fc.weight": weights(5, 6),
    }
    nodes = [
        node("Conv", ["x", "patches"], "p", strides=[2, 2]),
        node("Reshape", ["p", "shape"], "r"),
        node("Transpose", ["r"], "t", perm=[0, 2, 1]),
        node("Shape", ["x"], "s"),
        node("Gather", ["s", "first"], "n", axis=0),
        node("Mod", ["big", "modulus"], "three"),
        node("Sub", ["three", "one"], "two"),
        node("Sub", ["two", "one"], "single"),
        node("Concat", ["n", "keep"], "wanted", axis=0),
        node("Equal", ["wanted", "minus"], "is_open"),
        node("Where", ["is_open", "ones", "wanted"], "sizes"),
        node("Expand", ["token", "sizes"], "tokens"),
        node("Concat", ["tokens", "t"], "with_token", axis=1),
        node("Expand", ["behind", "sizes"], "more"),
        node("Concat", ["with_token", "more"], "all", axis=1),
        node("Add", ["all", "positions"], "z"),
        node("Gather", ["z", "single"], "g", axis=1),
        node("Squeeze", ["g", "single"], "v"),
        node("Gemm", ["v", "fc.weight"], "y", transB=1),
    ]
    return model(nodes, [3, 4, 4], w, 17)


class Samples(CalibrationDataReader):
    """The samples that ranges are found on."""

    def __init__(self):
        random = np.random.default_rng(8)
        self.samples = iter([{"x": random.standard_normal((4, 3, 8, 8)).astype(np.float32)} for _ in range(4)])

    def get_next(self):
        return next(self.samples, None)


def quantised(form):
    """Convolutions with a residual sum, ReLU6 and max-pooling, and a Gemm, most weights zero, as onnxruntime quantises them: opset 17."""
    w = {"low": np.float32(0), "high": np.float32(6)}
    for name, shape in {"conv1": (4, 3, 3, 3), "conv2": (4, 4, 3, 3), "conv3": (4, 4, 3, 3), "fc": (5, 64)}.items():
        weight = weights(*shape)
        weight[np.abs(weight) < np.quantile(np.abs(weight), 0.75)] = 0
        w |= {f"{name}.weight": 2 * weight, f"{name}.bias": weights(shape[0], scale=0.1)}
    padded = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    nodes = [
        node("Conv", ["x", "conv1.weight", "conv1.bias"], "a", **padded),
        node("Relu", ["a"], "b"),
        node("MaxPool", ["b"], "c", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["c", "conv2.weight", "conv2.bias"], "d", **padded),
        node("Clip", ["d", "low", "high"], "e"),
        node("Conv", ["e", "conv3.weight", "conv3.bias"], "f", **padded),
        node("Add", ["f", "c"], "g"),
        node("Relu", ["g"], "h"),
        node("Flatten", ["h"], "i"),
        node("Gemm", ["i", "fc.weight", "fc.bias"], "y", transB=1),
    ]
    with tempfile.TemporaryDirectory() as folder:
        f32, made = Path(folder) / "f32.onnx", Path(folder) / "made.onnx"
        onnx.save(model(nodes, [3, 8, 8], w, 17), f32)
        quantize_static(f32, made, Samples(), quant_format=form, per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
        return onnx.load(made)


def qdq():
    return quantised(QuantFormat.QDQ)


def qoperator():
    return quantised(QuantFormat.QOperator)


def arrays(built, session):
    """Three samples and what onnxruntime makes of them, by the names that they have in the .npz."""
    inputs = {}
    # Old files list initializers among their inputs.
    constants = {tensor.name for tensor in built.graph.initializer}
    for value in built.graph.input:
        if value.name in constants:
            continue
        batch, *rest = value.type.tensor_type.shape.dim
        # Open sizes are 6.
        shape = [3 if rest else batch.dim_value, *[d.dim_value or 6 for d in rest]]
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if np.issubdtype(kind, np.integer):
            inputs[value.name] = RANDOM.integers(0, IDS[value.name], shape).astype(kind)
        else:
            inputs[value.name] = RANDOM.standard_normal(shape).astype(np.float32)
    names = [value.name for value in built.graph.output]
    outputs = dict(zip(names, session.run(None, inputs)))
    if len(inputs) == len(outputs) == 1:
        return {"x": inputs["x"], "y": outputs[names[0]]}
    return inputs | outputs


def main():
    made = {make.__name__: make for make in (residual, perceptron, shape_chain, mobile, sparse, half)}
    made |= {f"opset_{n}": lambda n=n: spelled(n) for n in (7, 10, 11, 13, 18, 23)}
    layouts = (flat_to_image, one_channel_last, channels_last, constants_of_each_element, softmax_of_map, open_size, column)
    made |= {make.__name__: make for make in (*layouts, one_dimension, no_batch, elementwise, several, sequence, layer_normalization, prelu, decomposed, moved, ids, computed)}
    # At the end, so that the files before them stay as they are.
    made |= {make.__name__: make for make in (resized, transposed_convolutions, class_token)}
    of_integers = {make.__name__: make for make in (qdq, qoperator)}
    made |= of_integers
    for name, make in made.items():
        built = make()
        onnx.checker.check_model(built)
        path = (HERE / "quantised" if name in of_integers else HERE) / f"{name}.onnx"
        onnx.save(built, path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        of_file = arrays(built, session)
        np.savez(path.with_suffix(".npz"), **of_file)
        print(f"{path.name}: {path.stat().st_size} bytes, {', '.join(f'{n} {a.shape}' for n, a in of_file.items())}")


if __name__ == "__main__":
    main()
