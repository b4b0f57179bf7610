"""The documents: every link leads somewhere, and the page of presets has every preset, with its parameters."""

import re
from collections import Counter
from pathlib import Path

import pytest

from alexnet_mp import load_network
from alexnet_mp.network.costs import network_cost
from tests.support.processes import CHECKOUT

PAGES = sorted(CHECKOUT.glob("*.md")) + sorted((CHECKOUT / "docs").glob("*.md"))
GROUPS = ("network", "experiment", "ablation", "recipe", "data", "sweep", "hardware_descriptions")


def prose(page: Path) -> str:
    """The page without its blocks of code, which have no headings and no links."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings: GitHub takes letters, digits, - and _, and numbers those that repeat."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ +(.*?) *$", prose(page), re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def dead_links(page: Path) -> list[str]:
    """The links of a page to files and headings that are not there; addresses elsewhere are not looked at."""
    words = re.sub(r"`[^`\n]*`", "", prose(page))
    targets = re.findall(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)", words)
    targets += re.findall(r"(?:src|href|srcset)=\"([^\"]+)\"", words) + re.findall(
        r"^\[[^]]+\]: +(\S+)", words, re.MULTILINE
    )
    dead = []
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        leads = file.exists() and file.is_relative_to(CHECKOUT.resolve())
        if not leads or (anchor and anchor not in anchors(file)):
            dead.append(target)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_docs.CHECKOUT", tmp_path)
    (tmp_path / "other.md").write_text("# One `two_three`, 4 %: five\n# Again\n# Again\n```\n# no heading\n```\n")
    page = tmp_path / "page.md"
    right = ["other.md", "#here", "other.md#one-two_three-4--five", "other.md#again-1", "https://example.org/x#y"]
    wrong = ["another.md", "#there", "other.md#no-heading", "other.md#again-2", "../elsewhere.md", "picture.png"]
    page.write_text("# Here\n" + "\n".join(f"[words]({target}), `[code](not.md)`" for target in right + wrong))
    assert dead_links(page) == wrong


def test_every_picture_of_the_documents_is_shown() -> None:
    shown = "".join(prose(page) for page in PAGES)
    pictures = [path for kind in ("png", "svg") for path in (CHECKOUT / "docs").rglob(f"*.{kind}")]
    assert [path.name for path in pictures if f"/{path.name})" not in shown and f"({path.name})" not in shown] == []


def test_the_page_of_presets_has_every_preset_with_its_parameters() -> None:
    page = (CHECKOUT / "docs" / "presets.md").read_text(encoding="utf-8")
    for group in GROUPS:
        for path in (CHECKOUT / "conf" / group).rglob("*.yaml"):
            name = path.relative_to(CHECKOUT / "conf" / group).with_suffix("").as_posix()
            assert f"`{name}`" in page, f"{group}/{name}"
    for path in (CHECKOUT / "conf" / "network").glob("*.yaml"):
        network = load_network(path.stem)
        (row,) = re.findall(rf"^\| `{path.stem}` \|.*\| \d+x\d+x\d+ \|.*$", page, re.MULTILINE)
        _, _, image, towers, parameters, _ = (cell.strip() for cell in row.strip("|").split("|"))
        assert image == "x".join(map(str, network.image))
        assert int(towers) == network.towers
        assert parameters == f"{network_cost(network.without_auxiliaries()).parameters:,}"
