"""Reads the files of the authors' code (cuda-convnet): `[name]` and `key=value`, each with its line."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TypeVar

from alexnet_mp.common.disk import regular
from alexnet_mp.errors import ConfigurationError, explained

_Choice = TypeVar("_Choice")


@dataclass(frozen=True)
class Section:
    """A `[name]` of a file: the text of its keys, and the line of each. Its errors name file, line and section."""

    file: Path
    name: str
    line: int
    values: dict[str, str]
    lines: dict[str, int]

    def refused(self, why: str, key: str = "") -> ConfigurationError:
        """The error to raise; at the line of the section, or of its `key`."""
        return ConfigurationError(f"{self.file}, line {self.lines.get(key, self.line)}, [{self.name}]: {why}")

    def check(self, keys: Collection[str], only: Mapping[str, float]) -> None:
        """Raise ConfigurationError unless all keys are of `keys` or `only`, and those of `only` have that number."""
        for key, value in self.values.items():
            if key not in keys and (key not in only or self.number(key) != only[key]):
                said = f"{key}={value}" + (f", only {only[key]}" if key in only else "")
                raise self.refused(f"neither a table nor a recipe can say {said}", key)

    def words(self, key: str) -> list[str]:
        """What stands behind `key`: one word, or one for each layer that this one reads."""
        return [word.strip() for word in self.values.get(key, "").split(",") if word.strip()]

    def one_of(self, key: str, meanings: Mapping[str, _Choice]) -> _Choice:
        """The meaning of the word behind `key`, of "" where there is none. Raises ConfigurationError."""
        word = self.values.get(key, "")
        if word not in meanings:
            raise self.refused(f"{key}={word}; a table can say {', '.join(filter(None, meanings))}", key)
        return meanings[word]

    def number(self, key: str, default: float | None = None) -> float:
        """The one number behind `key`, for every layer that this one reads. Raises ConfigurationError."""
        words = {"true": "1", "false": "0"}
        found = self.words(key) or ([] if default is None else [str(default)])
        try:
            numbers = {float(words.get(word.lower(), word)) for word in found}
        except ValueError:
            numbers = set()
        if len(numbers) != 1 or not all(map(isfinite, numbers)):
            said = f"{key}={self.values[key]}" if key in self.values else f"{key} is missing"
            raise self.refused(f"{said}; it must be one number, the same for all that the layer reads", key)
        return numbers.pop()

    def count(self, key: str, default: int | None = None) -> int:
        """The one whole number behind `key`. Raises ConfigurationError."""
        found = self.number(key, default)
        if found != int(found) or abs(found) > 1e6:
            raise self.refused(f"{key}={found:g}; it must be a whole number of at most a million", key)
        return int(found)


def read_sections(file: Path) -> dict[str, Section]:
    """The sections of a file by name, in its order. Raises ConfigurationError that names the line."""
    with explained(f"cannot read {file}", OSError, UnicodeError):
        text = regular(file).read_text("utf-8")
    sections: dict[str, Section] = {}
    section: Section | None = None
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        key, equals, value = (part.strip() for part in line.partition("="))
        if not line or line[0] in "#;":
            continue
        if line[0] == "[" and line[-1] == "]":
            section = Section(file, line[1:-1].strip(), number, {}, {})
            if section.name in sections:
                raise section.refused(f"it stands in line {sections[section.name].line} already")
            sections[section.name] = section
        elif section is None or not equals or not key:
            raise ConfigurationError(f"{file}, line {number}: {line[:60]!r} is neither [name] nor key=value")
        elif key in section.values:
            raise ConfigurationError(f"{file}, line {number}, [{section.name}]: it has {key} twice")
        else:
            section.values[key], section.lines[key] = value, number
    return sections
