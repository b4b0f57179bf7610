"""Evaluate checkpoints: python launch/evaluate.py checkpoint=CHECKPOINT views=10; see `conf/evaluate.yaml`."""

from functools import partial

from alexnet_mp.analysis.evaluate.evaluate import CheckpointEvaluation, evaluate_checkpoints
from alexnet_mp.analysis.evaluate.folder import write_results
from alexnet_mp.analysis.evaluate.settings import EvaluateSettings
from alexnet_mp.common.cli import Configuration, run_command, show
from alexnet_mp.common.schema import from_mapping


def run(configuration: Configuration) -> None:
    """Evaluate, print the errors, and write the results; in the main process alone, of several."""
    settings = from_mapping(EvaluateSettings, configuration, "")
    found = evaluate_checkpoints(settings)
    if found.is_main:
        show(_text(found))
        write_results(found.folder, found.summary, found.evaluation, found.data.class_names, settings.most_confused)
        show(f"{'results':<11} {found.folder}")


def _text(found: CheckpointEvaluation) -> str:
    """An evaluation for a terminal."""
    summary, first = found.summary, found.members[0]
    image = "x".join(map(str, first.network.image))
    networks = ", ".join(dict.fromkeys(member.network.name for member in found.members))
    averaged = [f"{summary['views']} views"] if summary["views"] > 1 else []
    averaged += [f"{len(found.members)} networks"] if len(found.members) > 1 else []
    how = f"the softmax averaged over {' and '.join(averaged)}" if averaged else "the center crop"
    lines = [
        ("network", f"{networks}: image {image}, {first.network.classes} classes, {found.summary['placement']}"),
        *(("checkpoint", str(member.folder)) for member in found.members),
        ("data", found.data.description),
        ("input", f"pixels less the {first.input.mean} mean, / {first.input.pixel_divisor:g}"),
        ("evaluated", f"{summary['images']:,} images of {summary['split']}, {how}"),
        ("took", f"{summary['seconds']:.1f} s, {summary['images_per_second']:.0f} images/s"),
        ("loss", f"{summary['loss']:.4f}"),
        ("top-1 error", f"{100 * summary['top1_error']:.2f} %"),
        ("top-5 error", f"{100 * summary['top5_error']:.2f} %"),
    ]
    return "\n".join(f"{name:<11} {value}" for name, value in lines)


main = partial(run_command, "evaluate", run, of_all_processes=True)  # what launch/evaluate.py calls

if __name__ == "__main__":
    main()
