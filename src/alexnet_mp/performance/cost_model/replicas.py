"""Several replicas on several nodes: whether they fit there, and the ring over which gradients are summed."""

from dataclasses import dataclass, replace

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.performance.cost_model.device import Device, Link


@dataclass(frozen=True)
class Layout:
    """So many replicas of all towers, dealt equally to nodes; a replica is never split over two of them."""

    replicas: int = 1
    nodes: int = 1

    def on(self, device: Device, towers: int) -> Device:
        """What a tower has of the nodes' devices: one, or on cores of a processor also a part of one.

        Raises ConfigurationError, where there are several replicas, for nodes that they do not divide, nodes with too
        few devices, and a description that says nothing of what connects nodes.
        """
        if self.replicas == 1 and self.nodes == 1:
            return device
        if self.replicas % self.nodes:
            raise ConfigurationError(
                f"{self.replicas} replicas cannot be dealt equally to {self.nodes} nodes; use a multiple, for example "
                f"replicas={-(-self.replicas // self.nodes) * self.nodes}"
            )
        if self.nodes > 1 and device.between_nodes is None:
            raise ConfigurationError(
                f"device {device.name} says nothing of a link between nodes; add between_nodes to its description, or "
                "node_bandwidth=BYTES_A_SECOND"
            )
        needed = towers * self.replicas // self.nodes
        if needed <= device.devices:
            return device
        if device.one_process is None:
            most = max(1, device.devices // towers)
            raise ConfigurationError(
                f"{needed} towers on each of {self.nodes} nodes, which have {device.devices} devices; use at most "
                f"replicas={most * self.nodes}, or nodes={-(-self.replicas // most)}"
            )
        return device.shared_by(-(-needed // device.devices))


ONE_REPLICA = Layout()
TCP_LATENCY_SECONDS = 50e-6  # assumption, for a link that is given by its bandwidth alone


def linked(device: Device, node_bandwidth: float | None) -> Device:
    """The device with so many bytes a second from a node to the others, in place of what its description says."""
    if node_bandwidth is None:
        return device
    latency = device.between_nodes.latency_seconds if device.between_nodes else TCP_LATENCY_SECONDS
    return replace(device, between_nodes=Link("node_bandwidth", node_bandwidth, latency))


def ring(device: Device, nodes: int, rings: int) -> Link:
    """The slowest link of a ring over equal devices on so many nodes: a ring is as fast as that.

    Every node has `rings` of them, which share what leaves the node: one a tower, each over the replicas of its tower.
    """
    if nodes == 1:
        return device.link
    assert device.between_nodes is not None, "Layout.on checks it"
    within, between = (
        link.all_reduce_bandwidth or link.bandwidth * link.achieved for link in (device.link, device.between_nodes)
    )
    slowest = device.between_nodes if between / rings < within else device.link
    return replace(
        slowest,
        all_reduce_bandwidth=min(within, between / rings),
        latency_seconds=max(device.link.latency_seconds, device.between_nodes.latency_seconds),
    )
