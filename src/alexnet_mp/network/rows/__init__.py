"""The kinds of row that a network table may have. Counts of kernels and units are per tower."""

from typing import Literal

from alexnet_mp.network.rows.base import KINDS, Place, Reads, Row, RowCost, Shape, parse_row, reads_of, row_kind, walk
from alexnet_mp.network.rows.compound import Auxiliary, Branches, plain_rows
from alexnet_mp.network.rows.plain import (
    AveragePool,
    BatchNorm,
    Dropout,
    GlobalAveragePool,
    LocalResponseNorm,
    MaxPool,
    Relu,
    SpatialNorm,
    Tanh,
)
from alexnet_mp.network.rows.weighted import Classifier, Conv, FullyConnected, Local

# Kinds that only the tables of layers and of ONNX nodes name need not stand here.
__all__ = [
    "KINDS",
    "Auxiliary",
    "AveragePool",
    "BatchNorm",
    "Branches",
    "Classifier",
    "Conv",
    "Convention",
    "Dropout",
    "FullyConnected",
    "GlobalAveragePool",
    "Local",
    "LocalResponseNorm",
    "MaxPool",
    "Place",
    "Reads",
    "Relu",
    "Row",
    "RowCost",
    "Shape",
    "SpatialNorm",
    "Tanh",
    "parse_row",
    "plain_rows",
    "reads_of",
    "row_kind",
    "walk",
]

Convention = Literal["authors", "inverted"]  # of dropout: who scales, evaluation or training
