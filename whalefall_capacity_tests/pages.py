"""The pages of the documentation as data: their headings, links, blocks of code, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from whalefall_capacity.settings import PROJECT_ROOT

PAGES = sorted([*PROJECT_ROOT.glob("*.md"), *(PROJECT_ROOT / "docs").glob("*.md")])
PROGRAM = "whalefall-capacity"


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    content: str


@dataclass(frozen=True)
class Page:
    """A page of Markdown."""

    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def prose(self) -> str:
        """The page without its blocks of code."""
        return re.sub(r"^```.*?^```$", "", self.text, flags=re.DOTALL | re.MULTILINE)

    @property
    def headings(self) -> list[tuple[int, str]]:
        """Level and text of every heading."""
        return [(len(marks), title) for marks, title in re.findall(r"^(#+) (.+)$", self.prose, re.MULTILINE)]

    @property
    def anchors(self) -> set[str]:
        """Anchors that the forge gives to headings: in lower case, without punctuation, blanks as hyphens."""
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for _, title in self.headings}

    @property
    def links(self) -> list[str]:
        """Targets of links and images, in order."""
        return re.findall(r"\]\(([^)\s]+)\)", self.prose)

    @property
    def words_in_code(self) -> set[str]:
        """The words in backticks in the text."""
        return set(re.findall(r"`([^`\n]+)`", self.prose))

    def blocks(self, *languages: str) -> list[Block]:
        """Return the blocks of code in any of *languages*, in order; all of them when none is named."""
        found = re.findall(r"^```(\w*)\n(.*?)^```$", self.text, re.DOTALL | re.MULTILINE)
        return [Block(language, content) for language, content in found if not languages or language in languages]

    def commands(self) -> Iterator[list[str]]:
        """Yield the arguments of every call of the program, in the blocks of shell and in the text."""
        for block in self.blocks("sh"):
            for line in block.content.replace("\\\n", " ").splitlines():
                yield from commands_in(line)
        for words in re.findall(rf"`{PROGRAM} ([^`]+)`", self.prose.replace("\n", " ")):
            # `runs list | show` means two commands.
            first, *others = (shlex.split(part) for part in words.split(" | "))
            yield first
            yield from (first[:-1] + other for other in others)


def page(name: str) -> Page:
    """Return a page by its path in the project."""
    return Page(PROJECT_ROOT / name)


def commands_in(line: str) -> Iterator[list[str]]:
    """Yield the arguments of every call of the program in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    for position, word in enumerate(words):
        # Alone, or with the folder that it is in; not the folder of that name.
        if word == PROGRAM or word.endswith(f"bin/{PROGRAM}"):
            following = words[position + 1 :]
            ends = (n for n, other in enumerate(following) if set(other) <= set("|&;()<>"))
            yield following[: next(ends, len(following))]
        for inner in re.findall(r"\$\((.*?)\)", word):
            yield from commands_in(inner)
