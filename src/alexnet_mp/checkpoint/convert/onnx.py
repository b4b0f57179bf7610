"""Writes a network as an ONNX graph from its table: one or a few nodes for each row, in evaluation mode.

The graph is the network for a single device: what reads its own tower is a convolution in groups, tower 0's channels
first, and normalizations fold the towers into the batch. Written from the table and not traced, it has the rows' names,
any number of images at a time, and nothing that an exporter left behind.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from alexnet_mp.checkpoint.convert.dropout import dropout_scales
from alexnet_mp.checkpoint.convert.layout import to_single_device
from alexnet_mp.checkpoint.convert.single_device_file import about, scaled
from alexnet_mp.common.disk import write_whole
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.rows import Convention, Row, RowCost, plain, weighted
from alexnet_mp.network.table import Network
from alexnet_mp.version import __version__

Array = NDArray[Any]

INPUT, OUTPUT = "images", "logits"
_OPSET, _IR_VERSION = 17, 8  # of 2022, so that runtimes of some years read it; the nodes here are older
_LARGEST = 2**31 - 2**20  # bytes; a protobuf message may have 2 GiB


def save_onnx(
    path: Path,
    state_dict: Mapping[str, Tensor],
    network: Network,
    dropout: Convention,
    description: Mapping[str, Any] | None = None,
) -> None:
    """Write the towers' weights as an ONNX model from `images`, mean already subtracted, to `logits`, both float32.

    With `dropout="inverted"` the weights are as PyTorch's dropout wants them and nothing is multiplied behind dropout;
    the logits are the same. The model's metadata have the table, and of a checkpoint's `description` the class names
    and the scale of the input. Raises ConfigurationError if the package onnx is missing, a row's kind has no
    translation here, or the weights are more than the format takes.
    """
    with explained("out=*.onnx needs the package onnx; pip install onnx", ImportError):
        import onnx  # an extra, and slow to import
        from onnx import TensorProto, helper, numpy_helper
    scales = dropout_scales(network, dropout)
    weights = {
        name: np.ascontiguousarray(tensor.detach().cpu().float().numpy())
        for name, tensor in scaled(to_single_device(state_dict), scales).items()
    }
    graph = write_graph(network, dropout, weights)
    size = sum(array.nbytes for array in graph.constants.values())
    if size > _LARGEST:
        raise ConfigurationError(
            f"network {network.name} has {size:,} bytes of weights; one ONNX file takes {_LARGEST:,}"
        )
    proto = helper.make_graph(
        [helper.make_node(**node) for node in graph.nodes],
        network.name,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", *network.image])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", network.classes])],
        [numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
    )
    model = helper.make_model(
        proto,
        producer_name="alexnet-mp",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    known = about(description or {})
    metadata = {
        "name": network.name,
        "network": json.dumps(network.to_mapping()),
        "dropout": dropout,
        "images": "RGB, pixels on the 0..255 scale less their mean, divided by input's pixel_divisor",
        **{key: json.dumps(value) for key, value in known.items()},
    }
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, model.SerializeToString())


@dataclass
class Graph:
    """Nodes in order, each as arguments of onnx's `make_node`, and the constants that they read.

    `last` is what the next node reads.
    """

    constants: dict[str, Array]
    nodes: list[dict[str, Any]] = field(default_factory=list)
    last: str = INPUT

    def add(
        self, operator: str, name: str, *more: str, attributes: Mapping[str, object] | None = None, output: str = ""
    ) -> None:
        """Add an operator that reads what came last and then `more`."""
        output = output or f"{name}.output"
        node = {"op_type": operator, "name": name, "inputs": [self.last, *more], "outputs": [output]}
        self.nodes.append({**node, **(attributes or {})})
        self.last = output

    def constant(self, name: str, value: float | Sequence[int]) -> str:
        """Add a number, float32, or whole numbers, int64, and return the name."""
        self.constants[name] = np.array(value, np.float32 if isinstance(value, float) else np.int64)
        return name


@dataclass(frozen=True)
class InGraph:
    """What the nodes of a row need to know: its cost, the network's towers, and the convention of dropout."""

    name: str
    cost: RowCost
    towers: int
    dropout: Convention


def write_graph(network: Network, dropout: Convention, weights: Mapping[str, Array]) -> Graph:
    """The rows of a table as operators of ONNX; `weights` are a single device's, named as by `to_single_device`.

    Raises ConfigurationError for a row of a kind that has no translation here.
    """
    graph = Graph(dict(weights))
    costs = network_cost(network)
    for name, row in network.rows.items():
        if type(row) not in NODES:
            raise ConfigurationError(
                f"{name} is of kind {row.kind}, which is not translated to ONNX; convert to .safetensors instead"
            )
        NODES[type(row)](graph, row, InGraph(name, costs.row(name), network.towers, dropout))
    return graph


def _windows(row: weighted.Conv | plain.MaxPool | plain.AveragePool) -> dict[str, list[int]]:
    begin, end = row.pad
    return {"kernel_shape": [row.size] * 2, "strides": [row.stride] * 2, "pads": [begin, begin, end, end]}


def _add_convolution(graph: Graph, row: weighted.Conv, at: InGraph) -> None:
    group = at.towers if row.reads == "own" else 1
    attributes = {**_windows(row), "group": group}
    graph.add("Conv", at.name, f"{at.name}.weight", f"{at.name}.bias", attributes=attributes)


def _add_product(graph: Graph, row: weighted.FullyConnected | weighted.Classifier, at: InGraph) -> None:
    name = at.name
    if at.cost.reads == "own" and at.towers > 1 and not at.cost.bias_on_tower_0_only:
        _add_grouped_product(graph, at)
        return
    graph.add("Flatten", f"{name}.flat", attributes={"axis": 1})
    output = OUTPUT if isinstance(row, weighted.Classifier) else ""
    graph.add("Gemm", name, f"{name}.weight", f"{name}.bias", attributes={"transB": 1}, output=output)


def _add_lrn(graph: Graph, row: plain.LocalResponseNorm, at: InGraph) -> None:
    """Every tower's maps by themselves: [N, towers * C, H, W] seen as [N * towers, C, H, W]."""
    name, towers = at.name, at.towers
    maps, height, width = at.cost.input_shape
    if towers > 1:
        graph.add("Reshape", f"{name}.towers", graph.constant(f"{name}.of_a_tower", [-1, maps, height, width]))
    # ONNX divides alpha by n; the paper's alpha multiplies the sum itself.
    alpha = row.alpha * row.n if row.alpha_scales == "sum" else row.alpha
    graph.add("LRN", name, attributes={"size": row.n, "alpha": alpha, "beta": row.beta, "bias": float(row.k)})
    if towers > 1:
        graph.add("Reshape", f"{name}.together", graph.constant(f"{name}.of_all", [-1, towers * maps, height, width]))


def _add_spatial_norm(graph: Graph, row: plain.SpatialNorm, at: InGraph) -> None:
    """a / (k + alpha * mean of a² over the window)^beta, zeros outside counted in every mean."""
    name, maps, pad = at.name, graph.last, row.size // 2
    window = {"kernel_shape": [row.size] * 2, "pads": [pad] * 4, "count_include_pad": 1}
    graph.add("Mul", f"{name}.squares", maps)
    graph.add("AveragePool", f"{name}.mean", attributes=window)
    graph.add("Mul", f"{name}.scaled", graph.constant(f"{name}.alpha", row.alpha))
    graph.add("Add", f"{name}.shifted", graph.constant(f"{name}.k", row.k))
    graph.add("Pow", f"{name}.power", graph.constant(f"{name}.minus_beta", -row.beta))
    graph.add("Mul", name, maps)


def _add_batch_norm(graph: Graph, row: plain.BatchNorm, at: InGraph) -> None:
    tensors = [f"{at.name}.{each}" for each in (*at.cost.parameters_of_a_tower, *at.cost.buffers_of_a_tower)]
    graph.add("BatchNormalization", at.name, *tensors, attributes={"epsilon": row.epsilon})


def _add_group_norm(graph: Graph, row: plain.GroupNorm, at: InGraph) -> None:
    """Each group as one channel [N, groups, values], which InstanceNormalization normalizes; then scale and shift."""
    name, groups = at.name, at.towers * row.groups
    maps = at.towers * at.cost.input_shape[0]
    graph.add("Reshape", f"{name}.groups", graph.constant(f"{name}.of_a_group", [0, groups, -1]))
    for tensor, value in (("ones", 1.0), ("zeros", 0.0)):
        graph.constants[f"{name}.{tensor}"] = np.full(groups, value, np.float32)
    attributes = {"epsilon": row.epsilon}
    graph.add("InstanceNormalization", f"{name}.normalized", f"{name}.ones", f"{name}.zeros", attributes=attributes)
    graph.add("Reshape", f"{name}.maps", graph.constant(f"{name}.of_all", [-1, maps, *at.cost.input_shape[1:]]))
    for operator, tensor in (("Mul", "weight"), ("Add", "bias")):  # of every map: [maps] to [maps, 1, 1]
        array = graph.constants[f"{name}.{tensor}"]
        graph.constants[f"{name}.{tensor}"] = array.reshape(-1, *[1] * (len(at.cost.input_shape) - 1))
        graph.add(operator, f"{name}.{operator.lower()}", f"{name}.{tensor}")


def _add_dropout(graph: Graph, row: plain.Dropout, at: InGraph) -> None:
    if at.dropout == "authors":
        graph.add("Mul", at.name, graph.constant(f"{at.name}.kept", 1 - row.p))


def _add_grouped_product(graph: Graph, at: InGraph) -> None:
    """A fully-connected layer in groups: a convolution over one position, [N, inputs, 1] to [N, units, 1]."""
    name, towers = at.name, at.towers
    weight = graph.constants[f"{name}.weight"]
    graph.constants[f"{name}.weight"] = weight.reshape(*weight.shape, 1)
    columns = graph.constant(f"{name}.columns", [-1, towers * prod(at.cost.input_shape), 1])
    graph.add("Reshape", f"{name}.column", columns)
    graph.add("Conv", name, f"{name}.weight", f"{name}.bias", attributes={"kernel_shape": [1], "group": towers})
    graph.add("Flatten", f"{name}.flat", attributes={"axis": 1})


# How each kind of row is written; branches, auxiliary classifiers and unshared weights have no translation.
NODES: dict[type[Row], Callable[[Graph, Any, InGraph], None]] = {
    weighted.Conv: _add_convolution,
    weighted.FullyConnected: _add_product,
    weighted.Classifier: _add_product,
    plain.Relu: lambda graph, row, at: graph.add("Relu", at.name),
    plain.Tanh: lambda graph, row, at: graph.add("Tanh", at.name),
    plain.LocalResponseNorm: _add_lrn,
    plain.SpatialNorm: _add_spatial_norm,
    plain.BatchNorm: _add_batch_norm,
    plain.GroupNorm: _add_group_norm,
    plain.MaxPool: lambda graph, row, at: graph.add("MaxPool", at.name, attributes=_windows(row)),
    plain.AveragePool: lambda graph, row, at: graph.add(
        "AveragePool", at.name, attributes={**_windows(row), "count_include_pad": 0}
    ),
    plain.Dropout: _add_dropout,
}
