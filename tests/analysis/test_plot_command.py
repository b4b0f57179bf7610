"""`launch/plot.py` on small runs: kernels over seeds, neighbors against brute force, and refusals in one line."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet_mp.analysis.figures.kernel_color import read_kernels
from alexnet_mp.analysis.figures.nearest_neighbors import last_hidden_features, nearest
from alexnet_mp.checkpoint.files import load_checkpoint, save_checkpoint
from alexnet_mp.commands import plot
from alexnet_mp.common.cli import compose
from alexnet_mp.data.dataset import Share
from alexnet_mp.data.load import DataSettings, load_data
from alexnet_mp.data.loader import Loader
from alexnet_mp.data.pack import open_pack
from alexnet_mp.data.preprocessing import InputScale, Preprocessing
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.build import build_model
from alexnet_mp.network.table import Network, parse_network
from tests.support.evaluations import CLASSES, make_pack
from tests.training.test_validation import small

MEET = ", towers meet at conv3, fc6, fc7, fc8"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_pack(tmp_path_factory.mktemp("seven"), CLASSES)


def colored(network: Network) -> Network:
    """The same network, called otherwise."""
    return parse_network({**network.to_mapping(), "name": "colored"})


def save(
    run: Path,
    pack: str,
    seed: int,
    network: Network,
    gray_tower: int | None = None,
    alike: bool = False,
    **configured: Any,
) -> Path:
    """A run's folder with a checkpoint of initial weights; one tower's first kernels are made gray, or both alike."""
    state = dict(build_model(network, seed=seed).state_dict())
    if gray_tower is not None:
        name = f"towers.{gray_tower}.conv1.weight"
        state[name] = state[name][:, :1].expand_as(state[name]).contiguous()
    if alike:
        state["towers.1.conv1.weight"] = state["towers.0.conv1.weight"].clone()
    description = {
        "seed": seed,
        "data": {"source": "pack", "path": pack, "verify": True},
        "input": {"pixel_divisor": 64, "mean": "pixel"},
        "class_names": CLASSES,
        "configuration": {"experiment_name": "photos", "seed": seed, "run_dir": str(run), **configured},
        "progress": {"epoch": 3, "validation": {"top1_error": 0.25}},
    }
    save_checkpoint(run / "checkpoints" / "step-000000009", state, network, description, 10)
    return run


def draw(*overrides: str) -> None:
    plot.run(compose("plot", ["device=cpu", *overrides]))


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_a_study_counts_the_runs_in_which_towers_are_apart(
    pack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = small(7)
    apart = [save(tmp_path / f"apart{seed}", pack, seed, network, gray_tower=seed % 2) for seed in (1, 0)]
    alike = save(tmp_path / "alike", pack, 5, colored(network), alike=True)
    out = tmp_path / "study"
    draw("figure=kernels", f"runs=[{apart[0]},{apart[1]},{alike}]", f"out={out}")
    first, second = read(out / "kernels.json")["groups"]
    assert (first["name"], first["runs_separated"], len(first["runs"])) == (f"photos, small{MEET}", 2, 2)
    assert (second["name"], second["runs_separated"]) == (f"photos, colored{MEET}", 0)
    assert (second["runs"][0]["separation"]["auc"], second["runs"][0]["separation"]["p_value"]) == (0.5, 1)
    assert [run["seed"] for run in first["runs"]] == [0, 1]
    for run in first["runs"]:
        found = run["separation"]
        assert (found["auc"], found["less"], found["more"]) == (1.0, run["seed"], 1 - run["seed"])
        assert found["medians"][run["seed"]] == pytest.approx(0, abs=1e-9)
        assert found["p_value"] < 0.001
    page = (out / "kernels.md").read_text()
    assert f"photos, small{MEET}: apart at p &lt; 0.05 in 2 of 2 runs" in page
    assert f"python launch/plot.py figure=kernels 'runs=[{apart[0]},{apart[1]},{alike}]'" in page
    assert "in 0 of 1 runs" in capsys.readouterr().out
    assert Image.open(out / "kernels.png").size[0] > 500


def test_runs_called_alike_that_were_trained_otherwise_are_not_one_group(pack: str, tmp_path: Path) -> None:
    network = small(7)
    table = network.to_mapping()
    del table["layers"]["lrn1"]
    runs = [
        save(tmp_path / "whole0", pack, 0, network),
        save(tmp_path / "no_lrn", pack, 0, parse_network(table)),
        save(tmp_path / "slow", pack, 0, network, recipe={"epochs": 9}),
        save(tmp_path / "rounded", pack, 0, network, crossing_dtype="float16"),
        save(tmp_path / "whole1", pack, 1, network),
    ]
    draw("figure=kernels", f"runs=[{','.join(map(str, runs))}]", f"out={tmp_path / 'study'}")
    groups = read(tmp_path / "study" / "kernels.json")["groups"]
    assert [[Path(run["run"]).name for run in group["runs"]] for group in groups] == [
        ["whole0", "whole1"],
        ["no_lrn"],
        ["slow"],
        ["rounded"],
    ]
    assert [group["name"] for group in groups] == [f"photos, small{MEET}, as {run}" for run in runs[:4]]


def test_what_training_added_is_what_is_left_without_the_initial_weights(pack: str, tmp_path: Path) -> None:
    network = small(7)
    run = save(tmp_path / "run", pack, 7, network)
    folder = run / "checkpoints" / "step-000000009"
    state, description = load_checkpoint(folder)
    added = [torch.randn(state[f"towers.{t}.conv1.weight"].shape) for t in (0, 1)]
    trained = state | {f"towers.{t}.conv1.weight": state[f"towers.{t}.conv1.weight"] + added[t] for t in (0, 1)}
    save_checkpoint(run / "checkpoints" / "step-000000010", trained, network, description, 10)
    found = read_kernels(str(run), since_start=True)
    assert found.checkpoint == "step-000000010"
    for kernels, expected in zip(found.kernels, added, strict=True):
        assert torch.allclose(kernels, expected, atol=1e-6)
    assert all(bool(values.isnan().all()) for values in read_kernels(str(run), folder, since_start=True).colorfulness)


def test_what_training_added_to_another_runs_weights_is_not_told_by_the_seed(pack: str, tmp_path: Path) -> None:
    run = save(tmp_path / "run", pack, 5, small(7))
    state, description = load_checkpoint(run / "checkpoints" / "step-000000009")
    initial = {"checkpoint": "runs/many/checkpoints/step-000000100", "but": ["fc8"]}
    for but, is_refused in ((["fc8"], True), (["fc8", "conv1"], False)):
        description["configuration"]["initial_weights"] = {**initial, "but": but}
        folder = tmp_path / "-".join(but)
        save_checkpoint(folder, state, small(7), description, 10)
        if is_refused:
            with pytest.raises(ConfigurationError, match="conv1 began with the weights of runs/many"):
                read_kernels(str(run), folder, since_start=True)
            assert read_kernels(str(run), folder).kernels
        else:
            assert read_kernels(str(run), folder, since_start=True).kernels


def test_a_checkpoint_without_a_seed_says_what_since_start_lacks(pack: str, tmp_path: Path) -> None:
    run = save(tmp_path / "run", pack, 5, small(7))
    state, description = load_checkpoint(run / "checkpoints" / "step-000000009")
    del description["seed"]
    save_checkpoint(tmp_path / "converted", state, small(7), description, 10)
    with pytest.raises(ConfigurationError, match=r"it has no seed.*leave since_start away"):
        read_kernels(str(run), tmp_path / "converted", since_start=True)
    assert read_kernels(str(run), tmp_path / "converted").kernels


def test_the_first_layer_is_that_which_reads_the_image_whatever_stands_before(pack: str, tmp_path: Path) -> None:
    table = small(7).to_mapping()
    network = parse_network({**table, "layers": {"bn0": {"kind": "batch_norm"}, **table["layers"]}})
    run = save(tmp_path / "run", pack, 5, network)
    expected = build_model(network, seed=5).state_dict()
    drawn = read_kernels(str(run)).kernels
    assert all(torch.equal(drawn[tower], expected[f"towers.{tower}.conv1.weight"]) for tower in (0, 1))
    assert not any(kernels.any() for kernels in read_kernels(str(run), since_start=True).kernels)
    alone = parse_network({**table, "layers": {"fc8": table["layers"]["fc8"]}})
    assert (network.first_layer, alone.first_layer) == ("conv1", "fc8")


def test_one_runs_folder_gets_what_it_allows_and_the_rest_is_explained(
    pack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save(tmp_path / "run", pack, 0, small(7), gray_tower=0)
    draw(f"run_dir={run}")
    printed = capsys.readouterr().out
    assert "curves: not drawn: cannot read" in printed
    assert {path.name for path in (run / "plots").iterdir()} == {
        "kernels.png",
        "kernels.json",
        "nearest_neighbors.png",
        "nearest_neighbors.json",
    }
    found = read(run / "plots" / "kernels.json")
    assert (found["seed"], found["epochs"], found["top1_error"]) == (0, 3, 0.25)
    assert found["colorfulness"][0] == pytest.approx([0] * len(found["colorfulness"][0]), abs=1e-9)
    with pytest.raises(ConfigurationError, match="cannot read"):
        draw(f"run_dir={run}", "figure=curves")


def test_examples_have_the_nearest_training_images_by_brute_force(pack: str, tmp_path: Path) -> None:
    network = small(7)
    run = save(tmp_path / "run", pack, 3, network)
    draw(f"run_dir={run}", "figure=nearest_neighbors", "split=test", "images=[4,0,8]", "neighbors=5")
    found = read(run / "plots" / "nearest_neighbors.json")
    assert (found["split"], found["training_images_searched"]) == ("test", 14)
    data = open_pack(Path(pack))
    model = build_model(network, seed=3).eval()

    def inputs(split: str) -> torch.Tensor:
        """The center 16x16 of 20x20 pixels less the mean image's, by 64."""
        images = data.splits[split]
        pixels = np.empty((len(images), *images.image_shape), dtype=np.uint8)
        images.read(np.arange(len(images)), pixels)
        less_mean = (pixels - data.statistics.mean_image)[:, 2:18, 2:18] / 64
        return torch.from_numpy(less_mean).permute(0, 3, 1, 2).float()

    def hidden(images: torch.Tensor) -> np.ndarray:
        """relu7 of both towers, halved by dropout that is not inverted."""
        seen: dict[int, torch.Tensor] = {}
        for t, tower in enumerate(model.local_towers()):
            tower.get_submodule("relu7").register_forward_hook(lambda _m, _i, out, t=t: seen.update({t: out}))
        with torch.no_grad():
            model(images)
        return 0.5 * torch.cat([seen[0], seen[1]], dim=1).double().numpy()

    train, test = hidden(inputs("train")), hidden(inputs("test"))
    labels = data.splits["train"].labels
    with torch.no_grad():
        probabilities = model(inputs("test")).double().softmax(dim=1)
    assert [example["image"] for example in found["examples"]] == [4, 0, 8]
    for example in found["examples"]:
        distances = np.linalg.norm(train - test[example["image"]], axis=1)
        order = np.argsort(distances, kind="stable")[:5]
        assert [near["image"] for near in example["neighbors"]] == order.tolist()
        assert [near["distance"] for near in example["neighbors"]] == pytest.approx(distances[order], rel=1e-4)
        assert [near["label"] for near in example["neighbors"]] == [CLASSES[labels[i]] for i in order]
        assert example["label"] == CLASSES[data.splits["test"].labels[example["image"]]]
        expected, classes = probabilities[example["image"]].topk(5)
        assert example["probabilities"] == pytest.approx(expected.tolist(), rel=1e-4)
        assert example["classes"] == [CLASSES[c] for c in classes]


def test_the_seed_decides_which_examples_are_drawn_and_the_search_can_be_cut(pack: str, tmp_path: Path) -> None:
    run = save(tmp_path / "run", pack, 0, small(7))
    drawn = []
    for seed in (0, 0, 1):
        draw(f"run_dir={run}", "figure=nearest_neighbors", f"seed={seed}", "examples=4", "among=3", "neighbors=6")
        found = read(run / "plots" / "nearest_neighbors.json")
        drawn.append([example["image"] for example in found["examples"]])
        assert {near["image"] for example in found["examples"] for near in example["neighbors"]} == {0, 1, 2}
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 4 and drawn[0] == sorted(drawn[0])


def test_the_nearest_do_not_depend_on_how_images_are_batched_and_of_equal_ones_the_earlier_come_first() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 3, (50, 4), generator=generator).float()  # many equal ones
    queries = images[[7, 30]] + 0.25
    distances = (queries[:, None] - images).square().sum(2).sqrt()
    expected = np.argsort(distances.numpy(), axis=1, kind="stable")[:, :6]
    for size in (1, 7, 50):
        _, places = nearest(queries, torch.split(images, size), lambda batch: batch, 6)  # type: ignore[arg-type]
        assert places.tolist() == expected.tolist()


def test_features_are_those_of_evaluation_and_leave_the_model_as_it_was(pack: str) -> None:
    network = small(7)
    model = build_model(network).train()
    data = load_data(DataSettings("pack", pack), network.image, network.classes)
    preprocess = Preprocessing(data.statistics, network.image[1:], InputScale(64), torch.float32)
    batch = next(iter(Loader(data, network.image[1:], 4, Share(), 0).evaluation("test")))
    first, second = (last_hidden_features(model, preprocess, batch) for _ in range(2))
    assert first.shape == (4, 2 * network.rows["fc7"].units)
    assert torch.equal(first, second)  # no dropout
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    # The classifier alone, on these features, gives the logits.
    weight = torch.cat([model.towers[t].fc8.own_weight for t in "01"], dim=1)
    logits = model.eval()(preprocess(batch, torch.device("cpu")))
    assert torch.allclose(first @ weight.T + model.towers["0"].fc8.bias, logits, atol=1e-5)


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigurationError) as error:
        draw(*overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_be_drawn_is_said_in_one_line(pack: str, tmp_path: Path) -> None:
    network = small(7)
    run = save(tmp_path / "run", pack, 0, network)
    again = save(tmp_path / "again", pack, 0, network)
    out = f"out={tmp_path / 'out'}"
    assert "which run?" in refused()
    assert "give one of them" in refused(f"run_dir={run}", f"runs=[{run}]")
    assert "needs out=FOLDER" in refused("figure=kernels", f"runs=[{run}]")
    assert "figure=curves, kernels and relu" in refused(f"runs=[{run}]", out)
    assert f"both photos, small{MEET}, seed 0" in refused("figure=kernels", f"runs=[{run},{again}]", out)
    assert "named twice" in refused("figure=kernels", f"runs=[{run},{run}]", out)
    assert "images 0 to 8" in refused(f"run_dir={run}", "figure=nearest_neighbors", "split=test", "images=[9]")
    assert "no whole checkpoint" in refused(f"run_dir={tmp_path}", "figure=kernels")
    assert "nothing to draw" in refused(f"run_dir={tmp_path}")
    assert "did you mean 'kernels'" in refused(f"run_dir={run}", "figure=kernel")
    assert "gone" in refused(f"run_dir={run}", "figure=nearest_neighbors", f"data.path={tmp_path / 'gone'}")
    moved = save(tmp_path / "moved", str(tmp_path / "gone"), 0, network)
    assert "data.path=FOLDER names another" in refused(f"run_dir={moved}", "figure=nearest_neighbors")
    assert not (tmp_path / "out").exists()


def test_one_tower_and_gray_images_have_kernels_but_no_separation(tmp_path: Path) -> None:
    network = parse_network({**small(10).to_mapping(), "image": [1, 16, 16]})
    run = save(tmp_path / "run", "", 0, network)
    draw(f"run_dir={run}", "figure=kernels")
    assert read(run / "plots" / "kernels.json")["separation"] is None
    assert "no towers to compare" in refused("figure=kernels", f"runs=[{run}]", f"out={tmp_path / 'out'}")
    assert math.prod(Image.open(run / "plots" / "kernels.png").size) > 0
