"""What tests of networks against independent code share, in float64: weights, images, comparison of gradients."""

from collections.abc import Mapping

import torch
from torch import Tensor

from alexnet_mp import build_model, to_single_device
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.table import Network


def randomized(network: Network) -> TowerModel:
    """The model in float64, biases and normalizations with values of their own, large enough for gradients."""
    model = build_model(network, "simulated", "cpu", seed=1, dtype=torch.float64).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            fan_in = parameter[0].numel() if name.endswith("weight") else 9
            if "local" in name and parameter.ndim == 6:
                fan_in //= parameter.shape[-1] * parameter.shape[-2]
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(drawn * (2 / fan_in) ** 0.5)
    return model


def images_and_labels(network: Network, count: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *network.image, generator=generator, dtype=torch.float64), torch.arange(count)


def leaves(model: TowerModel) -> dict[str, Tensor]:
    return {name: t.detach().clone().requires_grad_() for name, t in to_single_device(model.state_dict()).items()}


def assert_same_gradients(model: TowerModel, single: Mapping[str, Tensor]) -> None:
    gradients = to_single_device({name: parameter.grad for name, parameter in model.named_parameters()})
    assert gradients.keys() == single.keys()
    for name, gradient in gradients.items():
        expected = single[name].grad
        assert expected.abs().max() > 0, name
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-10 * expected.abs().max().item(), msg=name)
