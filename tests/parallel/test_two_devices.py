"""One process, two devices, without a GPU: fake tensors remember their device, and every operation is watched."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alexnet_mp import load_network
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.parallel import links
from alexnet_mp.parallel.links import LocalLink
from alexnet_mp.parallel.placement import Placement

TOWER_DEVICES = {0: torch.device("cpu:0"), 1: torch.device("cpu:1")}


class Watch(TorchDispatchMode):
    """Notes each copy between the towers' devices, and refuses any other operation on tensors of two devices."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[tuple[str, str, int]] = []
        self.inside_crossing = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        inputs = {t.device for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) and t.ndim}
        outputs = {t.device for t in tree_leaves(result) if isinstance(t, torch.Tensor) and t.ndim}
        towers = set(TOWER_DEVICES.values())
        if inputs & towers and len((inputs | outputs) & towers) > 1:
            assert function is torch.ops.aten._to_copy.default, f"{function} works on {inputs | outputs}"
            assert self.inside_crossing, f"a copy from {inputs} to {outputs} outside of a crossing"
            self.copies.append((str(min(inputs, key=str)), str(min(outputs, key=str)), result.numel()))
        return result


def test_every_tensor_of_a_tower_is_on_its_device_and_only_crossings_copy(monkeypatch):
    watch = Watch()
    original = LocalLink.post

    def post(self, *arguments):
        watch.inside_crossing += 1
        try:
            return original(self, *arguments)
        finally:
            watch.inside_crossing -= 1

    monkeypatch.setattr(links.LocalLink, "post", post)
    network = load_network("paper")
    with FakeTensorMode(), watch:
        link = LocalLink(list(TOWER_DEVICES.values()))
        model = TowerModel(network, Placement("two_devices", 2, TOWER_DEVICES), link, seed=0)
        images = [torch.empty(2, 3, 224, 224, device=device) for device in TOWER_DEVICES.values()]
        logits = model.tower_logits(images, step=0)
        labels = [torch.zeros(2, dtype=torch.long, device=device) for device in TOWER_DEVICES.values()]
        torch.autograd.backward([F.cross_entropy(*pair) for pair in zip(logits, labels, strict=True)])

    for tower, device in TOWER_DEVICES.items():
        assert logits[tower].device == device
        for name, parameter in model.towers[str(tower)].named_parameters():
            assert parameter.device == device, name
            assert parameter.grad is not None and parameter.grad.device == device, name

    pool2, pool5, fc6, fc8 = 2 * 128 * 13 * 13, 2 * 128 * 6 * 6, 2 * 2048, 2 * 1000
    forward, backward = [pool2, pool5, fc6, fc8], [fc6, pool5, pool2]
    for source, target in (("cpu:0", "cpu:1"), ("cpu:1", "cpu:0")):
        assert [n for a, b, n in watch.copies if (a, b) == (source, target)] == forward + backward


def test_the_towers_of_one_process_get_their_images_on_their_devices():
    with FakeTensorMode():
        link = LocalLink(list(TOWER_DEVICES.values()))
        model = TowerModel(load_network("small"), Placement("two_devices", 2, TOWER_DEVICES), link, seed=0)
        logits = model(torch.empty(2, 3, 16, 16), step=0)
        logits.sum().backward()
        assert logits.device == TOWER_DEVICES[0]
        assert all(p.grad.device == TOWER_DEVICES[1] for p in model.towers["1"].parameters())
