"""What joins two GPUs: NVLink or PCIe, how near, and whether each reaches the other's memory."""

from dataclasses import dataclass

import pynvml

from alexnet_mp.telemetry.nvml import Gpu, ask

_TOPOLOGY = {
    pynvml.NVML_TOPOLOGY_INTERNAL: "on one board",
    pynvml.NVML_TOPOLOGY_SINGLE: "through one PCIe switch",
    pynvml.NVML_TOPOLOGY_MULTIPLE: "through several PCIe switches",
    pynvml.NVML_TOPOLOGY_HOSTBRIDGE: "through one host bridge",
    pynvml.NVML_TOPOLOGY_NODE: "through the host bridges of one NUMA node",
    pynvml.NVML_TOPOLOGY_SYSTEM: "from one NUMA node to another",
}
# The binding's own NVML_P2P_CAPS_INDEX_READ is the tuple (0,), by a stray comma.
_READ, _WRITE, _NVLINK = 0, pynvml.NVML_P2P_CAPS_INDEX_WRITE, pynvml.NVML_P2P_CAPS_INDEX_NVLINK
_OK = "ok"
_PEER_STATUS = {
    pynvml.NVML_P2P_STATUS_OK: _OK,
    pynvml.NVML_P2P_STATUS_CHIPSET_NOT_SUPPORTED: "the chipset does not support it",
    pynvml.NVML_P2P_STATUS_GPU_NOT_SUPPORTED: "the GPU does not support it",
    pynvml.NVML_P2P_STATUS_IOH_TOPOLOGY_NOT_SUPPORTED: "the I/O hubs' topology does not support it",
    pynvml.NVML_P2P_STATUS_DISABLED_BY_REGKEY: "disabled in the driver's settings",
    pynvml.NVML_P2P_STATUS_NOT_SUPPORTED: "not supported",
}


@dataclass(frozen=True)
class PcieEnd:
    """A GPU's own PCIe connection, in use now and at most; an idle GPU lowers its generation."""

    generation: int | None
    width: int | None
    most_generation: int | None
    most_width: int | None

    def in_words(self) -> str:
        now, most = _lanes(self.generation, self.width), _lanes(self.most_generation, self.most_width)
        return f"{now} (at most {most})" if most not in (now, _UNKNOWN_LANES) else now


@dataclass(frozen=True)
class GpuLink:
    """The connection of a first and a second GPU.

    `nvlinks` counts the active NVLinks between exactly these two; with `through_switch`, those to the NVSwitches that
    join them, of the GPU that has fewer; None where NVML says that NVLink joins them, but not by how many.
    `peer_read` and `peer_write` are "ok", the reason why not, or None where NVML does not tell.
    """

    nvlinks: int | None
    through_switch: bool
    pcie: tuple[PcieEnd, PcieEnd]
    topology: str | None
    peer_read: str | None
    peer_write: str | None

    def in_words(self, torch_peer: bool | None = None) -> str:
        """One phrase on the connection and one on peer access, beside torch's word for it where it is given."""
        torch_says = "" if torch_peer is None else f" (torch: {'yes' if torch_peer else 'no'})"
        return f"{self._connection()}; {self._peer_access()}{torch_says}"

    def _connection(self) -> str:
        if self.nvlinks is None:
            return "NVLink, number of links not told"
        if self.nvlinks:
            count = f"{self.nvlinks} link{'s' if self.nvlinks > 1 else ''}"
            return f"NVLink through NVSwitch, {count} each" if self.through_switch else f"NVLink, {count}"
        first, second = (end.in_words() for end in self.pcie)
        lanes = first if first == second else f"{first} and {second}"
        return ", ".join(filter(None, (f"PCIe {lanes}", self.topology)))

    def _peer_access(self) -> str:
        if self.peer_read is None and self.peer_write is None:
            return "peer access not told"
        if self.peer_read == self.peer_write:
            return "peer access" if self.peer_read == _OK else f"no peer access: {self.peer_read}"
        return f"peer access: read {self.peer_read or 'not told'}, write {self.peer_write or 'not told'}"


def link_between(first: Gpu, second: Gpu) -> GpuLink:
    """Ask NVML, with the GPUs' own PCIe ends and the nearest point that they share."""
    nvlinks, through_switch = _nvlinks(first, second)
    topology = ask(pynvml.nvmlDeviceGetTopologyCommonAncestor, first.handle, second.handle)
    return GpuLink(
        nvlinks,
        through_switch,
        (_pcie_end(first), _pcie_end(second)),
        _TOPOLOGY.get(topology),
        _peer_status(first, second, _READ),
        _peer_status(first, second, _WRITE),
    )


def _nvlinks(first: Gpu, second: Gpu) -> tuple[int | None, bool]:
    """Number of NVLinks, None for some, and whether they go through switches."""
    to_second, first_to_switch = _active_nvlinks(first, second.pci())
    if to_second:
        return to_second, False
    joined = _peer_status(first, second, _NVLINK)
    _, second_to_switch = _active_nvlinks(second, first.pci())
    if first_to_switch and second_to_switch and joined in (_OK, None):  # a switch may join other pairs and not this one
        return min(first_to_switch, second_to_switch), True
    return (None if joined == _OK else 0), False


def _active_nvlinks(gpu: Gpu, peer: tuple[int, int, int] | None) -> tuple[int, int]:
    """How many active NVLinks of `gpu` end at the PCI device `peer`, and how many at a switch."""
    to_peer = to_switch = 0
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        if ask(pynvml.nvmlDeviceGetNvLinkState, gpu.handle, link) != pynvml.NVML_FEATURE_ENABLED:
            continue
        remote = ask(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, gpu.handle, link)
        if remote and peer and (remote.domain, remote.bus, remote.device) == peer:
            to_peer += 1
        elif ask(pynvml.nvmlDeviceGetNvLinkRemoteDeviceType, gpu.handle, link) == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
            to_switch += 1
    return to_peer, to_switch


def _pcie_end(gpu: Gpu) -> PcieEnd:
    return PcieEnd(
        ask(pynvml.nvmlDeviceGetCurrPcieLinkGeneration, gpu.handle),
        ask(pynvml.nvmlDeviceGetCurrPcieLinkWidth, gpu.handle),
        ask(pynvml.nvmlDeviceGetMaxPcieLinkGeneration, gpu.handle),
        ask(pynvml.nvmlDeviceGetMaxPcieLinkWidth, gpu.handle),
    )


def _peer_status(first: Gpu, second: Gpu, what: int) -> str | None:
    return _PEER_STATUS.get(ask(pynvml.nvmlDeviceGetP2PStatus, first.handle, second.handle, what))


_UNKNOWN_LANES = "of unknown generation and width"


def _lanes(generation: int | None, width: int | None) -> str:
    if generation is None and width is None:
        return _UNKNOWN_LANES
    return f"{f'gen {generation}' if generation else 'gen ?'} {f'x{width}' if width else 'x?'}"
