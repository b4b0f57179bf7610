"""What a program of one's own imports: everything exported is documented and typed, and README's loop trains."""

import inspect
import re
import typing
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

import alexnet_mp
from tests.support.checkpoints import narrow_network
from tests.support.presets import composed
from tests.support.processes import CHECKOUT, as_under_torchrun, run_processes

BLOCKS = re.findall(r"```python\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
LOOP = next(block for block in BLOCKS if "open_mesh" in block)
STEPS = 3


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(8, 3, 16, 16, generator=generator) for _ in range(STEPS)]
    return [(images, torch.arange(8) % 10) for images in drawn]


def carried_out() -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses of the last step on this process's towers, and its weights, as README's loop leaves them."""
    names: dict[str, typing.Any] = {"batches": batches()}
    with as_under_torchrun() if torch.distributed.is_initialized() else nullcontext():
        exec(compile(LOOP, "README.md", "exec"), names)
    return [loss.item() for loss in names["of_towers"]], dict(names["model"].state_dict())


def test_readmes_loop_trains_the_same_in_one_process_and_in_two() -> None:
    losses, weights = carried_out()
    assert len(losses) == 2
    started = alexnet_mp.build_model("small").state_dict()
    assert all(not torch.equal(weights[name], started[name]) for name in weights if name.endswith("weight"))
    for tower, (loss, own) in enumerate(run_processes(2, carried_out)):
        assert loss == [losses[tower]]
        assert {name.split(".")[1] for name in own} == {str(tower)}
        assert all(torch.equal(own[name], weights[name]) for name in own)


def test_readmes_loop_is_short() -> None:
    assert 10 <= len([line for line in LOOP.splitlines() if line.strip()]) <= 16


@pytest.mark.parametrize("name", [name for name in alexnet_mp.__all__ if name != "__version__"])
def test_what_is_exported_is_documented_and_typed(name: str) -> None:
    exported = getattr(alexnet_mp, name)
    assert inspect.getdoc(exported)
    if inspect.isfunction(exported):
        hints = typing.get_type_hints(exported)
        assert set(hints) == {*inspect.signature(exported).parameters, "return"}


def test_train_trains_what_a_program_composes(tmp_path: Path) -> None:
    network = narrow_network().to_mapping()
    configuration = dict(composed("train", "recipe.epochs=1", "device=cpu"))
    summary = alexnet_mp.train({**configuration, "network": network, "run_dir": str(tmp_path / "run")})
    assert summary["steps"] == 1437 // 64
    state, description = alexnet_mp.load_checkpoint(alexnet_mp.find_checkpoint(tmp_path / "run"))
    assert description["progress"]["step"] == summary["steps"]
    assert state.keys() == alexnet_mp.build_model(narrow_network()).state_dict().keys()


def test_a_recipe_is_read_by_name_or_path() -> None:
    by_name = alexnet_mp.Recipe.load("paper")
    assert by_name == alexnet_mp.Recipe.load(CHECKOUT / "conf" / "recipe" / "paper.yaml")
    assert (by_name.batch_size, by_name.momentum) == (128, 0.9)  # paper §5
    with pytest.raises(alexnet_mp.ConfigurationError, match="did you mean 'paper'"):
        alexnet_mp.Recipe.load("papr")
    with pytest.raises(alexnet_mp.ConfigurationError, match="cannot read the recipe"):
        alexnet_mp.Recipe.load("nowhere.yaml")
