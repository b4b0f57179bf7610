"""Class names for people: reads what a class is, in words, from the lists that circulate with ImageNet."""

from collections.abc import Iterable

from alexnet_mp.data.prepare.tree import Tree

_LISTS = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")  # `n01440764 tench, Tinca tinca` a line


def class_words(tree: Tree, classes: Iterable[str]) -> dict[str, str]:
    """The words of those classes that a list in the source has."""
    name = tree.find(*_LISTS)
    if name is None:
        return {}
    wanted = set(classes)
    pairs = (line.split(None, 1) for line in tree.text(name).splitlines())
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2 and pair[0] in wanted}
