"""The two networks of one tower that a table is compared with: without towers, and the paper's one column."""

from dataclasses import replace

from alexnet_mp.network import rows
from alexnet_mp.network.table import Network


def ungrouped_network(network: Network) -> Network:
    """The table's kernels and units all in one tower, every layer reading all maps."""
    whole = network.cut_into(1)
    return replace(whole, name="ungrouped", rows={name: _reading_own(row) for name, row in whole.rows.items()})


def one_column_network(network: Network) -> Network:
    """The paper's one-GPU network: half the kernels, but those of the last convolution and the units not halved (§3.2).

    An odd number of kernels is halved downwards.
    """
    whole = ungrouped_network(network)
    convolutions = [name for name, row in whole.rows.items() if isinstance(row, rows.Conv)]
    halved = {}
    for name, row in whole.rows.items():
        if isinstance(row, rows.Conv) and name != convolutions[-1]:
            row = replace(row, kernels=max(1, row.kernels // 2))
        halved[name] = row
    return replace(whole, name="one_column", rows=halved)


def _reading_own(row: rows.Row) -> rows.Row:
    if isinstance(row, rows.Conv | rows.FullyConnected) and row.reads == "both":
        return replace(row, reads="own")
    return row
