"""Make a pack: python launch/prepare.py source=photos out=packs/photos; see `conf/prepare.yaml` for the keys."""

import sys

from alexnet_mp.common.cli import Configuration, run_command, show
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.data.prepare.prepare import PackSummary, prepare
from alexnet_mp.data.prepare.settings import PreparationSettings

_MOST_LINES = 20
_STOPPED = 130  # what a shell reports for a command that was interrupted


def run(configuration: Configuration) -> None:
    """Make the pack, and print what is in it and what was skipped."""
    settings = from_mapping(PreparationSettings, configuration, "")
    show(pack_summary_text(settings, prepare(settings)))


def pack_summary_text(settings: PreparationSettings, summary: PackSummary) -> str:
    """A summary for a terminal."""
    manifest = summary.manifest
    counts = ", ".join(f"{name} {split.count:,}" for name, split in manifest.splits.items())
    images = sum(split.count for split in manifest.splits.values())
    lines = [
        f"wrote {settings.out}: {images:,} images of {manifest.size}x{manifest.size} in {len(manifest.class_names)} "
        f"classes ({counts}), {images * 3 * manifest.size**2 / 1e9:.2f} GB",
        f"decoded {summary.images_decoded:,} in {summary.seconds:.1f} s "
        f"({summary.images_decoded / summary.seconds:.0f} images/s)"
        + (f"; {summary.shards_found} shards were finished before" if summary.shards_found else ""),
    ]
    skipped = manifest.skipped
    if skipped:
        lines.append(f"skipped {len(skipped):,}:")
        lines += [f"  {each.name}: {each.reason}" for each in skipped[:_MOST_LINES]]
        if len(skipped) > _MOST_LINES:
            lines.append(f"  and {len(skipped) - _MOST_LINES:,} more; manifest.json names all")
    return "\n".join(lines)


def main() -> None:
    """Entry point of `launch/prepare.py`."""
    try:
        run_command("prepare", run)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the finished shards", file=sys.stderr)
        sys.exit(_STOPPED)


if __name__ == "__main__":
    main()
