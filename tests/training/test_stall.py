"""A loss that stands at the labels' entropy is said once, with what ends it; one that falls is not."""

import re
from collections.abc import Iterable
from math import log
from pathlib import Path

import numpy as np
import pytest

from alexnet_mp.network.table import load_network
from alexnet_mp.training import stall
from alexnet_mp.training.stall import StallWatch
from tests.support.disturbed import trained
from tests.training.test_train import NARROW, metrics

EVEN = np.arange(2000) % 200  # 200 classes: ln(200) = 5.298
UNEVEN = np.array([0] * 9 + [1])  # 0.9 ln(1/0.9) + 0.1 ln(10) = 0.3251


def said(losses: Iterable[float], labels: np.ndarray = EVEN, every: int = 1, network: str = "paper") -> dict[int, str]:
    """What is said of these losses of steps 1, 2, ..., of which every so-many-th is read, by step."""
    watch = StallWatch(labels, load_network(network))
    looks = {step: watch.look(step, loss) for step, loss in enumerate(losses, start=1) if step % every == 0}
    return {step: words for step, words in looks.items() if words}


def noise(spread: float, count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, spread, count)


@pytest.mark.parametrize(
    ("losses", "labels", "every", "steps"),
    [
        ([5.298] * 3000, EVEN, 1, [501]),
        ([5.298] * 501, EVEN, 1, [501]),
        ([5.298] * 500, EVEN, 1, []),
        (5.298 + noise(0.2, 3000), EVEN, 1, [501]),
        ([5.298] * 3000, EVEN, 20, [520]),
        ([5.298] * 3000, EVEN, 300, [900]),
        ([5.298] * 3000, EVEN, 7, [553]),
        ([10.9] * 30 + [5.298] * 3000, EVEN, 1, [551]),  # an explosion, then a dead network
        ([2.7] * 480 + [5.298] * 3000, EVEN, 1, [1001]),  # it had learned
        (0.3251 + noise(0.01, 3000), UNEVEN, 1, [501]),
        ([0.0] * 3000, np.zeros(10, int), 1, []),  # one class: nothing to learn
        # What learns: by the figures for Tiny ImageNet, with std 0.03 in conv3 to conv5, 5.08 at step 220.
        (np.interp(range(3000), [0, 90, 220, 3000], [5.298, 5.298, 5.08, 3]), EVEN, 1, []),
        (np.interp(range(3000), [0, 3000], [5.298, 4]), EVEN, 1, []),  # slowly, from the start
        (np.interp(range(3000), [0, 1000, 3000], [7.5, 5.298, 2.5]), EVEN, 1, []),  # from far above, through it
        ([5.298] * 400 + [5.1] * 100 + [5.298] * 440, EVEN, 1, []),  # two short ones
        ([5.45] * 3000, EVEN, 1, []),  # 3 % away
        ([log(2)] * 3000, UNEVEN, 1, []),  # ln(classes) is not the entropy of classes of different sizes
    ],
)
def test_a_loss_is_said_to_stand_after_500_steps_within_2_percent_of_the_entropy(
    losses: Iterable[float], labels: np.ndarray, every: int, steps: list[int]
) -> None:
    assert list(said(losses, labels, every)) == steps


def test_what_is_said_names_the_layers_that_begin_narrow() -> None:
    wide = "network.layers.conv3.std=he network.layers.conv4.std=he network.layers.conv5.std=he"
    (words,) = said([5.298] * 600).values()
    assert "within 2% of 5.298 for 500 steps" in words
    assert f"in another run_dir: {wide}; another seed or a higher learning rate did not in the narrow runs" in words
    (exploded,) = said([16.0] + [5.298] * 600).values()
    assert exploded.endswith("; it was 16 before, and a lower learning rate may keep it from that")
    (he,) = said([5.298] * 600, network="small").values()
    assert "network.layers" not in he


# Of the quickstart's layers, the middle ones begin so small that nothing of an image comes through.
STALLS = (
    *NARROW,
    *(f"network.layers.conv{n}.std=0.001" for n in (3, 4, 5)),
    *(f"network.layers.fc{n}.units=64" for n in (6, 7)),
    *(f"recipe.{kind}.learning_rate=0.005" for kind in ("weights", "biases")),
    "recipe.batch_size=8",
    "recipe.epochs=3",
)
SAID = "^note .* the loss has stood within 2% of 2.30.* for {} steps.* in another run_dir: (.*); another seed"


def test_a_run_that_stalls_by_design_says_it_once_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall, "STEPS", 100)
    stalled = trained(tmp_path / "stalled", *STALLS, "recipe.epochs=1")
    assert len(re.findall(SAID.format(100), (stalled / "train.log").read_text(), re.MULTILINE)) == 1
    assert metrics(stalled, "epoch")[-1] == ("validation", 179, 1)


@pytest.mark.slow
def test_what_is_advised_ends_a_stall_and_another_seed_or_a_higher_learning_rate_does_not(tmp_path: Path) -> None:
    stalled = trained(tmp_path / "stalled", *STALLS)
    (advice,) = re.findall(SAID.format(500), (stalled / "train.log").read_text(), re.MULTILINE)
    higher = [f"recipe.{kind}.learning_rate=0.05" for kind in ("weights", "biases")]
    changes = {"advised": advice.split(), "seed": ["seed=1"], "rate": higher}
    runs = {name: trained(tmp_path / name, *STALLS, *change) for name, change in changes.items()}
    says = {name: "the loss has stood" in (run / "train.log").read_text() for name, run in runs.items()}
    assert says == {"advised": False, "seed": True, "rate": True}
    losses = {name: metrics(run, "loss")[-1][2] for name, run in runs.items()}
    assert losses["advised"] < 1.9
    assert min(losses["seed"], losses["rate"]) > 2.25
