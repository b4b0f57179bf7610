"""Loss and errors against counting by hand, ten views and ensembles against plain loops in numpy."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from alexnet_mp.data.dataset import DataSet, Images, ImagesInMemory, Share, Statistics
from alexnet_mp.data.loader import Loader
from alexnet_mp.data.preprocessing import InputScale, Preprocessing
from alexnet_mp.model.build import build_model
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.table import Network, load_network, parse_network
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.mesh import Mesh, make_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.training.validation import Evaluation, evaluate, in_top
from tests.support.transports import over, run_over

CROP = (16, 16)  # of the preset `small`
DIVISOR = 40.0

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]


def test_top_k_counts_classes_ahead_of_the_label():
    logits = torch.tensor([[0.1, 0.9, 0.5, 0.3, 0.2, 0.0]] * 6)
    ranks = [4, 0, 1, 2, 3, 5]
    for k in (1, 5):
        assert in_top(logits, torch.arange(6), k).tolist() == [rank < k for rank in ranks]


def test_of_equal_logits_the_first_classes_count():
    assert in_top(torch.zeros(10, 10), torch.arange(10), 5).tolist() == [True] * 5 + [False] * 5


def test_a_logit_that_is_not_a_number_is_never_right():
    logits = torch.full((3, 10), float("nan"))
    logits[1] = 0
    logits[1, 4] = float("nan")
    assert not in_top(logits, torch.tensor([0, 4, 9]), 1).any()


def test_with_fewer_than_five_classes_every_label_is_in_the_top_five():
    assert in_top(torch.randn(3, 3), torch.arange(3), 5).all()


def small(classes: int) -> Network:
    """The preset `small` with half of its kernels and units: what is counted does not depend on them."""
    table = load_network("small").to_mapping()
    for row in table["layers"].values():
        for width in ("kernels", "units"):
            if width in row:
                row[width] //= 2
    return parse_network({**table, "classes": classes})


def hand_made(classes: int, held_out: int = 13) -> DataSet:
    """Smooth random images of 20x23, so that crops of 16x16 have slack of 4 down and 7 to the right."""
    generator = np.random.default_rng(5)

    def images(count: int) -> ImagesInMemory:
        coarse = generator.integers(0, 256, (count, 5, 6, 3), dtype=np.uint8)
        return ImagesInMemory(coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :, 1:], np.arange(count) * 5 % classes)

    splits: dict[str, Images] = {"train": images(40), "validation": images(held_out)}
    mean = generator.uniform(60, 200, (20, 23, 3))
    names = tuple(f"class {label}" for label in range(classes))
    return DataSet("hand-made", "", names, splits, Statistics(mean, np.ones(3), np.eye(3)))


def ten_crops(images: NDArray[Any]) -> list[NDArray[Any]]:
    """Of images [n, height, width, 3] the corners and the center, 16x16, then the same in a mirror (paper §4.1)."""
    height, width = images.shape[1:3]
    top, left = (height - 16) // 2, (width - 16) // 2
    crops = [
        images[:, :16, :16],
        images[:, :16, -16:],
        images[:, -16:, :16],
        images[:, -16:, -16:],
        images[:, top : top + 16, left : left + 16],
    ]
    return crops + [crop[:, :, ::-1] for crop in crops]


def by_hand(
    models: list[TowerModel], pixels: Pixels, mean_image: Floats, views: int, mean: str, divisor: float
) -> Floats:
    """The mean softmax [n, classes] of images [n, height, width, 3], one view and one model at a time."""
    crops, means = ten_crops(pixels.astype(np.float64)), ten_crops(mean_image[None])
    if mean == "center":
        means = [means[4]] * 10
    found = []
    for model in models:
        model.eval()
        for view in range(10) if views == 10 else [4]:
            images = ((crops[view] - means[view]) / divisor).transpose(0, 3, 1, 2)
            with torch.no_grad():
                powers = np.exp(model(torch.from_numpy(images.copy())).numpy())
            found.append(powers / powers.sum(axis=1, keepdims=True))
    return np.mean(found, axis=0)


def expected(models: list[TowerModel], data: DataSet, views: int, mean: str = "pixel") -> Floats:
    """`by_hand` for the validation split of hand-made data."""
    split = data.splits["validation"]
    assert isinstance(split, ImagesInMemory)
    return by_hand(models, split.pixels, data.statistics.mean_image, views, mean, DIVISOR)


def evaluated(
    models: list[TowerModel],
    data: DataSet,
    views: Literal[1, 10] = 1,
    mean: Literal["pixel", "center"] = "pixel",
    mesh: Mesh | None = None,
    batch_size: int = 40,
) -> Evaluation:
    placement = models[0].placement
    loader = Loader(data, CROP, batch_size, Share(placement.replica, placement.replicas), seed=0)
    preprocess = Preprocessing(data.statistics, CROP, InputScale(DIVISOR, mean), torch.float64)
    return evaluate(models, loader.evaluation("validation", views), preprocess, mesh or Mesh(placement, None))


def models_of(classes: int, *seeds: int) -> list[TowerModel]:
    return [build_model(small(classes), seed=seed, dtype=torch.float64) for seed in seeds]


def assert_counted(found: Evaluation, probabilities: Floats, labels: NDArray[np.int64]) -> None:
    """`found` is what counting, image by image, gives of the probabilities [n, classes]."""
    classes = probabilities.shape[1]
    confusions, top5_wrong, loss = np.zeros((classes, classes), dtype=int), np.zeros(classes, dtype=int), 0.0
    for row, label in zip(probabilities, labels, strict=True):
        ranking = sorted(range(classes), key=lambda each: -row[each])
        confusions[label, ranking[0]] += 1
        top5_wrong[label] += label not in ranking[:5]
        loss -= np.log(row[label])
    assert found.confusions.tolist() == confusions.tolist()
    assert found.top5_wrong.tolist() == top5_wrong.tolist()
    assert found.errors.images == len(labels)
    assert found.errors.loss == pytest.approx(loss / len(labels), rel=1e-12)
    assert found.errors.top1_error == pytest.approx(1 - np.trace(confusions) / len(labels))
    assert found.errors.top5_error == pytest.approx(top5_wrong.sum() / len(labels))


@pytest.mark.parametrize("mean", ["pixel", "center"])
@pytest.mark.parametrize("views", [1, 10])
def test_views_equal_an_explicit_loop_over_the_crops(views: Literal[1, 10], mean: Literal["pixel", "center"]) -> None:
    data, models = hand_made(classes=7), models_of(7, 1)
    probabilities = expected(models, data, views, mean)
    assert len(set(probabilities.argmax(axis=1))) > 1, "a network that always says the same would test little"
    assert_counted(evaluated(models, data, views, mean), probabilities, data.splits["validation"].labels)


def test_ten_views_are_not_one() -> None:
    data, models = hand_made(classes=7), models_of(7, 1)
    assert evaluated(models, data, 10).errors.loss != pytest.approx(evaluated(models, data, 1).errors.loss, rel=1e-3)


@pytest.mark.parametrize("views", [1, 10])
def test_an_ensemble_is_the_mean_of_its_members_softmax(views: Literal[1, 10]) -> None:
    data, models = hand_made(classes=7), models_of(7, 1, 2, 3)
    alone = [expected([model], data, views) for model in models]
    assert_counted(evaluated(models, data, views), np.mean(alone, axis=0), data.splits["validation"].labels)


def test_models_are_evaluated_without_dropout_and_left_as_they_were() -> None:
    data, models = hand_made(classes=7), models_of(7, 1, 2)
    models[0].train()
    models[1].eval()
    first = evaluated(models, data)
    assert [model.training for model in models] == [True, False]
    assert evaluated(models, data).errors == first.errors


def test_of_equal_probabilities_the_first_class_is_predicted_and_the_first_five_count() -> None:
    data, (model,) = hand_made(classes=7), models_of(7, 1)
    for tower in model.towers.values():
        assert isinstance(tower, nn.Module)
        for parameter in tower.get_submodule("fc8").parameters():
            nn.init.zeros_(parameter)
    labels = data.splits["validation"].labels
    found = evaluated([model, model], data, 10)
    assert found.confusions.sum(dim=0).tolist() == [len(labels), 0, 0, 0, 0, 0, 0]
    assert found.errors.top1_error == pytest.approx((labels > 0).mean())
    assert found.errors.top5_error == pytest.approx((labels > 4).mean())
    assert found.errors.loss == pytest.approx(np.log(7))


def test_of_fewer_than_five_classes_none_is_outside_of_the_first_five() -> None:
    found = evaluated(models_of(3, 1), hand_made(classes=3), 10)
    assert found.errors.top1_error > 0
    assert (found.errors.top5_error, found.top5_wrong.tolist()) == (0, [0, 0, 0])


def test_weights_that_are_not_numbers_end_in_a_loss_that_is_not_one() -> None:
    (model,) = models_of(3, 1)
    nn.init.constant_(next(model.parameters()), float("nan"))
    assert not np.isfinite(evaluated([model], hand_made(classes=3)).errors.loss)


def save_evaluation(folder: str, kind: str, held_out: int) -> None:
    """Evaluate an ensemble in ten views, in this process's share of a run; each process writes what it finds."""
    distributed = torch.distributed.is_initialized()
    rank, count = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
    placement = choose_placement(kind, "cpu", 2, Launch.from_environment(rank, count))
    mesh = make_mesh(placement, timeout_seconds=30)
    models = [TowerModel(small(7), placement, mesh.link(), seed, torch.float64) for seed in (1, 2)]
    found = evaluated(models, hand_made(7, held_out), 10, mesh=mesh)
    torch.save((found.errors.loss, found.confusions, found.top5_wrong), Path(folder) / f"{rank}.pt")


@pytest.mark.parametrize("processes", [2, 4])
@over("gloo")
def test_several_processes_evaluate_as_one(transport: str, processes: int, tmp_path: Path) -> None:
    held_out = 13  # no whole number of batches, and no even share of two replicas
    save_evaluation(str(tmp_path), "simulated", held_out)
    loss, confusions, top5_wrong = torch.load(tmp_path / "0.pt", weights_only=True)
    assert int(confusions.sum()) == held_out
    run_over(transport, processes, save_evaluation, str(tmp_path), "distributed", held_out, deadline=150)
    for rank in range(processes):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        # Two replicas add up other partial sums than one.
        assert found[0] == (loss if processes == 2 else pytest.approx(loss, rel=1e-12))
        assert torch.equal(found[1], confusions)
        assert torch.equal(found[2], top5_wrong)
