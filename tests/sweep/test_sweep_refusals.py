"""A sweep that cannot be is refused in one line before anything is written."""

from pathlib import Path
from typing import Any

import pytest

from alexnet_mp import ConfigurationError
from tests.support.sweeps import ALL, TWO, Fake, refusal, sweep


def test_a_baseline_must_be_one_of_the_variants(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="baseline is 'lnr', not one of lrn, no_lrn; did you mean 'lrn'"):
        sweep(tmp_path, Fake(ALL), baseline="lnr")


def test_a_folder_of_other_variants_is_refused_with_the_difference(tmp_path: Path) -> None:
    sweep(tmp_path, Fake(ALL))
    before = (tmp_path / "sweep.json").read_bytes()
    other = {**TWO, "no_lrn": ["network.layers.lrn2=null"]}
    difference = "variants.no_lrn was ['network.layers.lrn1=null'] and is ['network.layers.lrn2=null']"
    assert difference in refusal(tmp_path, variants=other)
    assert "variants.no_lrn was ['network.layers.lrn1=null'] and is None" in refusal(tmp_path, variants={"lrn": []})
    assert "overrides was [] and is ['recipe.epochs=3']" in refusal(tmp_path, overrides=["recipe.epochs=3"])
    assert (tmp_path / "sweep.json").read_bytes() == before
    more = Fake({"new/seed-5": 0.2, "lrn/seed-5": 0.2, "no_lrn/seed-5": 0.2})
    done, _ = sweep(tmp_path, more, variants={**TWO, "new": ["recipe.epochs=2"]}, seeds=[5])
    assert not done.failed


@pytest.mark.parametrize("text", ["{", "[]", '{"format_version": 1, "definition": {"overrides": [], "variants": 3}}'])
def test_a_file_that_no_sweep_wrote_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(text)
    assert "is not what a sweep writes" in refusal(tmp_path)
    (tmp_path / "sweep.json").write_text('{"format_version": 9, "definition": {"overrides": [], "variants": {}}}')
    assert "format_version 9" in refusal(tmp_path)


def test_a_finished_run_of_another_configuration_is_refused_with_the_difference(tmp_path: Path) -> None:
    sweep(tmp_path, Fake(ALL))
    path = tmp_path / "lrn" / "seed-1" / "config.yaml"
    path.write_text(path.read_text().replace("  epochs: 15\n", "  epochs: 7\n"))
    fake = Fake(ALL)
    assert "recipe.epochs was 7 and is 15" in refusal(tmp_path, fake)
    assert fake.started == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": {"a": [], "b": ["recipe.epcohs=1"]}}, "variant b: unknown key 'recipe.epcohs'; did you mean"),
        ({"variants": {"a": ["experiment=digist"]}}, "variant a: experiment is 'digist', not one of"),
        ({"overrides": ["recipe.epochs=many"]}, "variant lrn: recipe.epochs must be a whole number"),
        ({"overrides": ["recipe.epochs=0"]}, "recipe.epochs is 0, must be positive"),
        ({"processes": 3}, "3 processes cannot hold replicas of 2 towers"),
        ({"variants": {}}, "variants is empty"),
        ({"variants": {"a": "recipe.epochs=1"}}, "variants.a.overrides must be a list"),
        ({"variants": {"a": {"override": []}}}, "unknown key 'variants.a.override'; did you mean 'overrides'?"),
        ({"variants": {"../a": []}}, "its name is that of a folder"),
        ({"variants": {"/a": []}}, "its name is that of a folder"),
        ({"variants": {"..": []}}, "its name is that of a folder"),
        ({"variants": {"=1+1": []}}, "its name is that of a folder"),
        ({"variants": {"sweep.json": []}}, "its name is that of a folder"),
        ({"variants": {"a": [], "A": []}}, "the same name but for its case"),
        ({"variants": {"a": ["seed=1"]}}, "use seeds=[0,1,2]"),
        ({"overrides": ["++run_dir=x"]}, "use out=FOLDER"),
        ({"overrides": ["--multirun"]}, "which is no override"),
        ({"overrides": ["seed"]}, "which is no override"),
        ({"seeds": []}, "give one or more"),
        ({"seeds": [1, 1]}, "each of them once"),
        ({"parallel": 0}, "parallel is 0, must be positive"),
        (
            {"variants": {"a": {"overrides": [], "published": {"source": "x", "top1_error": 40.7}}}},
            "must be a fraction",
        ),
    ],
)
def test_a_mistake_is_said_before_anything_is_written(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    fake = Fake({})
    assert message in refusal(tmp_path / "out", fake, **changes)
    assert fake.started == []
    assert not (tmp_path / "out").exists()
