"""Whether a run compiles its LRN: where it pays, where it can, and in all processes alike."""

import pytest
import torch

from alexnet_mp import build_model, load_network
from alexnet_mp.model.layers import norm
from alexnet_mp.model.layers.norm import LocalResponseNorm
from alexnet_mp.parallel.mesh import Mesh
from alexnet_mp.training import compile as compile_module
from alexnet_mp.training.compile import choose_kernels

BATCH = 64
# network=small: LRN after conv1 and conv2; at 16x16 their maps are 48 of 16x16 and 128 of 7x7, on each of two towers.
STEP_VALUES = 2 * BATCH * (48 * 16 * 16 + 128 * 7 * 7)


MISSING = 1.0  # what a process answers that lacks something


class OtherProcess(Mesh):
    """A mesh with one more process, which answers the n-th question with the n-th of `answers`."""

    def __init__(self, mesh: Mesh, answers: list[float]) -> None:
        super().__init__(mesh.placement, None)
        object.__setattr__(self, "answers", iter(answers))

    def gather(self, values):
        return [values, [next(self.answers)]]


@pytest.fixture
def model():
    return build_model(load_network("small"))


@pytest.fixture(autouse=True)
def tried(monkeypatch):
    """Instead of compiling, notes the shapes that would be; `compiled` itself is tested with the layers."""
    shapes = []
    monkeypatch.setattr(compile_module, "missing_compiler", lambda device: None)
    monkeypatch.setattr(LocalResponseNorm, "forward", lambda self, maps: shapes.append(tuple(maps.shape)) or maps)
    return shapes


def compiled(model) -> set[bool]:
    return {layer.compiled for layer in model.modules() if isinstance(layer, LocalResponseNorm)}


def test_auto_compiles_where_the_steps_save_twice_what_compiling_takes(model, tried):
    a_step = STEP_VALUES * compile_module.SECONDS_SAVED_PER_VALUE["cpu"]
    enough = int(2 * compile_module.SECONDS_TO_COMPILE / a_step) + 1
    assert "would save" in choose_kernels("auto", model, enough - 10, BATCH, Mesh(model.placement, None))
    assert (compiled(model), tried) == ({False}, [])
    assert choose_kernels("auto", model, enough, BATCH, Mesh(model.placement, None)).startswith("the LRN")
    assert compiled(model) == {True}
    assert tried == 2 * [(BATCH, 48, 16, 16), (BATCH, 128, 7, 7)]


def test_on_compiles_however_short_the_run_and_off_never(model):
    mesh = Mesh(model.placement, None)
    assert choose_kernels("off", model, 10**9, BATCH, mesh) == "nothing"
    assert compiled(model) == {False}
    choose_kernels("on", model, 1, BATCH, mesh)
    assert compiled(model) == {True}


def test_without_a_compiler_nothing_is_compiled_and_the_log_says_so(model, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("CXX", "no-such-compiler")
    words = choose_kernels("on", model, 1, BATCH, Mesh(model.placement, None))
    assert words == "nothing: there is no C++ compiler (no-such-compiler)"
    assert compiled(model) == {False}


def test_where_another_process_has_no_compiler_nobody_compiles(model, tried):
    words = choose_kernels("on", model, 1, BATCH, OtherProcess(Mesh(model.placement, None), [MISSING]))
    assert words == "nothing: another process has no compiler"
    assert (compiled(model), tried) == ({False}, [])


def test_where_compiling_fails_in_one_process_all_fall_back(model, monkeypatch):
    words = choose_kernels("on", model, 1, BATCH, OtherProcess(Mesh(model.placement, None), [0.0, MISSING]))
    assert words == "nothing: it failed in another process"
    assert compiled(model) == {False}

    def broken(self, maps):
        raise RuntimeError("CppCompileError: cc1plus: out of memory")

    monkeypatch.setattr(LocalResponseNorm, "forward", broken)
    words = choose_kernels("on", model, 1, BATCH, OtherProcess(Mesh(model.placement, None), [0.0, 0.0]))
    assert words == "nothing: compiling failed (RuntimeError: CppCompileError: cc1plus: out of memory)"
    assert compiled(model) == {False}


def test_a_network_without_lrn_has_nothing_to_compile():
    model = build_model("cifar10_batchnorm")
    assert choose_kernels("on", model, 1, BATCH, Mesh(model.placement, None)) == "nothing to compile"


@pytest.mark.parametrize(("training", "expected"), [(True, [True]), (False, [False])])
def test_only_training_runs_the_compiled_kernels(training, expected, monkeypatch):
    # Evaluation has other batch sizes, each of which would be compiled anew.
    monkeypatch.undo()
    seen = []
    monkeypatch.setattr(norm, "local_response_norm", lambda maps, *rest: seen.append(rest[-1]) or maps)
    layer = LocalResponseNorm(5, 2.0, 1e-4, 0.75, "sum").train(training)
    layer.compiled = True
    layer(torch.ones(1, 5, 2, 2))
    assert seen == expected
