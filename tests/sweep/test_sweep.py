"""A sweep runs every variant with every seed, goes on after failures and kills, and tabulates what the runs found."""

import csv
import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from alexnet_mp import ConfigurationError
from alexnet_mp.common import cli
from alexnet_mp.sweep import folder as sweep_folder
from alexnet_mp.sweep import run as sweep_run
from alexnet_mp.sweep.jobs import Job, make_jobs, torchrun_command
from alexnet_mp.sweep.settings import parse_sweep_settings
from tests.support.presets import composed
from tests.support.processes import CHECKOUT, run_script
from tests.support.sweeps import ALL, TWO, Fake, compose, configuration, refusal, sweep, values
from tests.training.test_train import NARROW


def test_one_torchrun_trains_each_job_and_a_failed_one_does_not_end_the_sweep(tmp_path: Path) -> None:
    quoted = ",".join(f"'{override}'" for override in (*NARROW, "recipe.epochs=1"))
    variants = "variants={bad: ['recipe.weights.learning_rate=1e9'], good: []}"
    asked = [variants, f"overrides=[{quoted}]", "parallel=2", f"out={tmp_path / 'out'}"]
    finished = run_script("launch/sweep.py", asked, tmp_path)
    assert finished.code == 1
    assert finished.stderr == "error: 1 of 2 jobs failed\n"
    lines = [finished.stdout.splitlines()[0], *sorted(finished.stdout.splitlines()[1:3])]
    assert lines[1].startswith("[1/2] bad/seed-0: failed with exit code 1: the loss at step ")
    assert lines[2].startswith("[2/2] good/seed-0: done, top-1 error ")
    summary = json.loads((tmp_path / "out" / "good" / "seed-0" / "summary.json").read_text())
    found = values(tmp_path / "out")
    assert found["variants"]["good"]["top1_error"]["median"] == summary["top1_error"]
    assert found["variants"]["bad"]["seeds"] == 0
    assert shlex.split(found["command"]) == ["python", "launch/sweep.py", *asked]
    assert "22/22" in (tmp_path / "out" / "good" / "seed-0.log").read_text()
    assert summary["command"].endswith("recipe.epochs=1 seed=0")


def test_every_variant_is_trained_with_every_seed_in_a_folder_of_its_own(tmp_path: Path) -> None:
    settings = parse_sweep_settings(configuration(tmp_path / "it's here", overrides=["recipe.epochs=3"], processes=2))
    jobs = make_jobs(settings, partial(cli.compose, "train"))
    assert [job.name for job in jobs] == ["lrn/seed-0", "lrn/seed-1", "no_lrn/seed-0", "no_lrn/seed-1"]
    last = jobs[3].configuration
    assert last["run_dir"] == str(tmp_path / "it's here" / "no_lrn" / "seed-1")
    assert (last["seed"], last["recipe"]["epochs"], last["network"]["layers"]["lrn1"]) == (1, 3, None)
    command = torchrun_command(jobs[3], 2)
    assert command[:5] == [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    assert command[5:] == ["-m", "alexnet_mp.commands.train", *jobs[3].overrides]


def test_a_preset_of_ones_own_is_checked_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text("# @package _global_\nvariants: {a: [], b: [recipe.epcohs=1]}\n")
    finished = run_script("launch/sweep.py", ["--config-dir", str(tmp_path), "sweep=mine", "out=out"], tmp_path)
    assert finished.code == 2
    assert finished.stderr.startswith("error: variant b: unknown key 'recipe.epcohs'; did you mean 'recipe.epochs'?")


def test_a_network_of_ones_own_is_found_by_the_check_and_by_the_jobs(tmp_path: Path, monkeypatch) -> None:
    own = tmp_path / "it's mine"
    (own / "network").mkdir(parents=True)
    table = {**composed("train")["network"], "name": "mine"}
    (own / "network" / "mine.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(table)))
    handed = []
    monkeypatch.setattr("alexnet_mp.commands.sweep.run_sweep", lambda *arguments: handed.append(arguments))
    asked = ["--config-dir", own.name, "variants={a: ['network=mine']}", "out=out"]
    run_script("launch/sweep.py", asked, tmp_path)
    ((settings, compose, _, command_of, command),) = handed
    (job,) = make_jobs(settings, compose)
    assert job.configuration["network"]["name"] == "mine"
    told = command_of(job, 1)[command_of(job, 1).index("alexnet_mp.commands.train") + 1 :]
    assert told == ["--config-dir", str(own), *job.overrides]
    assert shlex.split(command) == ["python", "launch/sweep.py", *asked]
    (elsewhere := tmp_path / "elsewhere").mkdir()
    shown = run_script("launch/train.py", [*told, "--cfg", "job"], elsewhere).stdout
    assert OmegaConf.create(shown).network.name == "mine"
    with pytest.raises(ConfigurationError, match=r"network is 'mien', not one of .*mine.*; did you mean 'mine'"):
        compose(["network=mien"])
    with pytest.raises(ConfigurationError, match="network is 'mine', not one of"):
        cli.compose("train", ["network=mine"])  # nothing of it stays for the next


def test_a_batch_that_is_scaled_may_be_one_that_replicas_do_not_divide(tmp_path: Path) -> None:
    scaled = ["batch_scaling=linear", "recipe.batch_size=63"]
    settings = parse_sweep_settings(configuration(tmp_path, overrides=scaled, processes=4))
    assert len(make_jobs(settings, compose)) == 4
    assert "63 cannot be shared equally by 2 replicas" in refusal(tmp_path, overrides=scaled[1:], processes=4)


@pytest.mark.parametrize("path", sorted((CHECKOUT / "conf" / "sweep").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_that_comes_with_the_library_can_be_started(path: Path, tmp_path: Path) -> None:
    settings = parse_sweep_settings(cli.compose("sweep", [f"sweep={path.stem}", f"out={tmp_path}"]))
    assert len(make_jobs(settings, compose)) == len(settings.variants) * len(settings.seeds) > 1


def test_medians_and_ranges_are_over_the_seeds(tmp_path: Path) -> None:
    errors = {f"lrn/seed-{seed}": error for seed, error in enumerate((0.1, 0.4, 0.2))}
    done, said = sweep(tmp_path, Fake(errors), variants={"lrn": []}, seeds=[0, 1, 2])
    assert not done.failed
    found = values(tmp_path)["variants"]["lrn"]
    assert found["seeds"] == 3
    assert found["top1_error"] == {"median": 0.2, "lowest": 0.1, "highest": 0.4}
    assert found["top5_error"] == pytest.approx({"median": 0.02, "lowest": 0.01, "highest": 0.04})
    assert found["validation_loss"]["median"] == 1.0
    assert (found["images_per_second"]["median"], found["seconds"]["median"]) == (100, 600)
    assert "20.00 (10.00 to 40.00)" in said[-1]
    with (tmp_path / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["seed"], row["top1_error"]) for row in rows] == [
        *(("job", "0", "0.1"), ("job", "1", "0.4"), ("job", "2", "0.2")),
        *(("median", "", "0.2"), ("lowest", "", "0.1"), ("highest", "", "0.4")),
    ]


def test_published_numbers_stand_beside_ours(tmp_path: Path) -> None:
    published = {"top1_error": 0.407, "source": "paper, Table 2"}
    variants = {"lrn": {"overrides": [], "published": published}, "no_lrn": TWO["no_lrn"]}
    _, said = sweep(tmp_path, Fake(ALL), variants=variants)
    head, _, ours, without = said[-1].strip().splitlines()
    assert "published top-1, %" in head
    assert ours.endswith("40.70            paper, Table 2")
    assert "paper" not in without
    unknown = {"top5_error": None, "top1_points": None, "top5_points": None}
    assert values(tmp_path)["variants"]["lrn"]["published"] == {**published, **unknown}


def test_variants_are_compared_with_the_baseline_seed_by_seed(tmp_path: Path) -> None:
    errors = {"lrn/seed-0": 0.10, "lrn/seed-1": 0.30, "no_lrn/seed-0": 0.15, "no_lrn/seed-1": 0.31}
    published = {"top1_points": 1.4, "source": "paper §3.3"}
    variants = {"lrn": [], "no_lrn": {"overrides": TWO["no_lrn"], "published": published}}
    _, said = sweep(tmp_path, Fake(errors), variants=variants, baseline="lrn")
    head, _, baseline, without = said[-1].strip().splitlines()
    assert "points above baseline" in head and "published points" in head
    assert "+" not in baseline
    assert "+3.00 (+1.00 to +5.00)" in without and "+1.40" in without
    found = values(tmp_path)["variants"]
    assert found["lrn"]["above_baseline"]["top1_error"] is None
    assert found["no_lrn"]["above_baseline"]["top1_error"] == pytest.approx(
        {"median": 0.03, "lowest": 0.01, "highest": 0.05}, abs=1e-12
    )


def test_a_failed_job_is_noted_with_its_code_and_last_words_and_the_others_run(tmp_path: Path) -> None:
    fake = Fake({name: error for name, error in ALL.items() if name != "lrn/seed-1"})
    done, said = sweep(tmp_path, fake)
    assert fake.started == list(ALL)
    (failed,) = done.failed
    assert (failed.job.name, failed.exit_code, failed.error) == ("lrn/seed-1", 3, "it broke")
    assert said[2].startswith("[2/4] lrn/seed-1: failed with exit code 3: it broke (log: ")
    jobs = {f"{job['variant']}/{job['seed']}": job for job in values(tmp_path)["jobs"]}
    assert (jobs["lrn/1"]["status"], jobs["lrn/1"]["exit_code"], jobs["lrn/1"]["error"]) == ("failed", 3, "it broke")
    assert values(tmp_path)["variants"]["lrn"]["seeds"] == 1
    assert "1 of 2" in said[-1]


def test_a_job_that_ends_well_without_a_summary_has_failed(tmp_path: Path) -> None:
    done, _ = sweep(tmp_path, Fake({}, code=0), variants={"lrn": []}, seeds=[0])
    assert "has no summary.json" in done.failed[0].error


def test_a_job_that_cannot_be_started_has_failed(tmp_path: Path) -> None:
    done, said = sweep(tmp_path, lambda job, processes: ["/nowhere/python"], variants={"lrn": []}, seeds=[0])
    assert "cannot be started" in done.failed[0].error
    assert said[1].startswith("[1/1] lrn/seed-0: failed, cannot be started")


def test_the_same_sweep_again_runs_only_what_is_not_done(tmp_path: Path) -> None:
    sweep(tmp_path / "a", Fake({name: error for name, error in ALL.items() if name != "no_lrn/seed-0"}))
    (tmp_path / "a").rename(tmp_path / "b")  # also from another place
    held = values(tmp_path / "b")
    del held["command"]  # as older sweeps were written
    (tmp_path / "b" / "sweep.json").write_text(json.dumps(held))
    again = Fake(ALL)
    done, said = sweep(tmp_path / "b", again)
    assert again.started == ["no_lrn/seed-0"]
    assert "command" in values(tmp_path / "b")
    assert "3 done before" in said[0]
    assert not done.failed
    assert values(tmp_path / "b")["variants"]["no_lrn"]["top1_error"]["median"] == 0.4
    # What the earlier attempt printed stays, and is not taken for the next one's words.
    again.says, again.errors = "error: another", {}
    done, _ = sweep(tmp_path / "b", again, variants={**TWO, "new": []})
    assert {result.error for result in done.failed} == {"another"}


def test_the_tables_are_written_after_every_job(tmp_path: Path) -> None:
    seen = []

    def fake(job: Job, processes: int) -> list[str]:
        seen.append([each["status"] for each in values(tmp_path)["jobs"]])
        return Fake(ALL)(job, processes)

    sweep(tmp_path, fake, seeds=[0])
    assert seen == [["not started", "not started"], ["done", "not started"]]


def test_a_full_disk_ends_no_job_and_is_said_at_the_end(tmp_path: Path, monkeypatch, capsys) -> None:
    written = []

    def write(*arguments: Any) -> None:
        if written:
            raise OSError("no space left")
        written.append(sweep_folder.write_sweep_results(*arguments))

    monkeypatch.setattr(sweep_run, "write_sweep_results", write)
    fake = Fake(ALL)
    done, _ = sweep(tmp_path, fake)
    assert fake.started == list(ALL)
    assert "no space left" in done.unwritten
