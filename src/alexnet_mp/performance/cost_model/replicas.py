"""Several replicas on several nodes: whether they fit there, and the ring over which gradients are summed."""

from dataclasses import dataclass, replace

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.performance.cost_model.hardware import DeviceLink, Hardware


@dataclass(frozen=True)
class Layout:
    """So many replicas of all towers, dealt equally to nodes; a replica is never split over two of them."""

    replicas: int = 1
    nodes: int = 1

    def on(self, hardware: Hardware, towers: int) -> Hardware:
        """What a tower has of the nodes' devices: one, or on cores of a processor also a part of one.

        Raises ConfigurationError, if there are several replicas, for nodes that they do not divide, nodes with too
        few devices, and a description that says nothing of what connects nodes.
        """
        if self.replicas == 1 and self.nodes == 1:
            return hardware
        if self.replicas % self.nodes:
            raise ConfigurationError(
                f"{self.replicas} replicas cannot be dealt equally to {self.nodes} nodes; use a multiple, for example "
                f"replicas={max(1, self.replicas // self.nodes) * self.nodes}"
            )
        if self.nodes > 1 and hardware.between_nodes is None:
            raise ConfigurationError(
                f"hardware {hardware.name} says nothing of a link between nodes; add between_nodes to its description, "
                "or node_bandwidth=BYTES_A_SECOND"
            )
        needed = towers * self.replicas // self.nodes
        if needed <= hardware.devices:
            return hardware
        if hardware.one_process is None:
            most = max(1, hardware.devices // towers)
            raise ConfigurationError(
                f"{needed} towers on each of {self.nodes} nodes, which have {hardware.devices} devices; use at most "
                f"replicas={most * self.nodes}, or nodes={-(-self.replicas // most)}"
            )
        return hardware.shared_by(-(-needed // hardware.devices))


ONE_REPLICA = Layout()
TCP_LATENCY_SECONDS = 50e-6  # assumption, for a link that is given by its bandwidth alone


def linked(hardware: Hardware, node_bandwidth: float | None) -> Hardware:
    """The hardware with so many bytes a second from a node to the others, in place of what its description says."""
    if node_bandwidth is None:
        return hardware
    latency = hardware.between_nodes.latency_seconds if hardware.between_nodes else TCP_LATENCY_SECONDS
    return replace(hardware, between_nodes=DeviceLink("node_bandwidth", node_bandwidth, latency))


def ring(hardware: Hardware, nodes: int, rings: int) -> DeviceLink:
    """The slowest link of a ring over equal devices on so many nodes: a ring is as fast as that.

    Every node has `rings` of them, which share what leaves the node: one a tower, each over the replicas of its tower.
    """
    if nodes == 1:
        return hardware.link
    assert hardware.between_nodes is not None, "Layout.on checks it"
    within, between = hardware.link.all_reduce_rate, hardware.between_nodes.all_reduce_rate
    slowest = hardware.between_nodes if between / rings < within else hardware.link
    return replace(
        slowest,
        all_reduce_bandwidth=min(within, between / rings),
        latency_seconds=max(hardware.link.latency_seconds, hardware.between_nodes.latency_seconds),
    )
