"""Make a pack: python launch/prepare.py source=photos out=packs/photos; see `conf/prepare.yaml` for the keys."""

from functools import partial

from alexnet_mp.common.cli import Configuration, run_command, show
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.data.prepare.prepare import PackSummary, prepare
from alexnet_mp.data.prepare.settings import PreparationSettings

_MOST_LINES = 20


def run(configuration: Configuration) -> None:
    """Make the pack, and print what is in it and what was skipped."""
    settings = from_mapping(PreparationSettings, configuration, "")
    show(pack_summary_text(settings, prepare(settings, tell=show)))


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
    lines += _first_lines("skipped {}:", [f"{each.name}: {each.reason}" for each in manifest.skipped])
    repeated = [f"{', '.join(each.names)}: {each.why}" for each in manifest.repeated]
    return "\n".join(lines + _first_lines("the same bytes in two splits or under two labels, {} times:", repeated))


def _first_lines(title: str, lines: list[str]) -> list[str]:
    """The title, with the number of lines in it, and the first lines; nothing without lines."""
    if not lines:
        return []
    more = [f"and {len(lines) - _MOST_LINES:,} more; manifest.json names all"] if len(lines) > _MOST_LINES else []
    return [title.format(f"{len(lines):,}"), *(f"  {line}" for line in lines[:_MOST_LINES] + more)]


main = partial(run_command, "prepare", run)  # what launch/prepare.py calls

if __name__ == "__main__":
    main()
