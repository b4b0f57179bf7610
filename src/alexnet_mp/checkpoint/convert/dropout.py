"""Converts weights between the two conventions of dropout."""

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.rows import Convention, Dropout
from alexnet_mp.network.table import Network


def dropout_scales(network: Network, convention: Convention) -> dict[str, float]:
    """Factors that turn the table's weights into weights for `convention`, by name: the layers after dropout.

    With the authors' dropout, evaluation halves what comes out of a dropout row (p = 0.5). PyTorch's and Caffe's do
    not, so for them the weights that read from there, fc7's and fc8's, are halved instead (times 1 - p).

    Raises ConfigurationError if a row stands between dropout and the next layer with weights whose output does not
    scale with its input (any normalization, tanh), and if branches or an auxiliary classifier do, so that several
    layers read what comes out of it.
    """
    scales: dict[str, float] = {}
    factor, dropped = 1.0, ""
    inside = {full: name for name, row in network.rows.items() for full in row.within(name) if full != name}
    for name, row in network.layer_rows.items():
        if isinstance(row, Dropout) and row.inverted != (convention == "inverted"):
            factor *= 1 - row.p if convention == "inverted" else 1 / (1 - row.p)
            dropped = name
        elif factor != 1.0 and inside.get(name) != inside.get(dropped):
            raise ConfigurationError(f"{inside[name]} is not the only one to read {dropped}, whose scale would change")
        elif row.has_weights:
            if factor != 1.0:
                scales[f"{name}.weight"] = factor
            factor = 1.0
        elif factor != 1.0 and not row.scales_with_input:
            raise ConfigurationError(
                f"{name}, {row.kind}, reads what comes out of dropout; weights cannot make up for its scale"
            )
    return scales
