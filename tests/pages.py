"""Pages of documentation as their readers take them: sections, commands that are pasted, flags, figures, links."""

import re
from pathlib import Path
from typing import NamedTuple

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
# 33.8 million and 3380 万 are one figure.
FIGURE = re.compile(r"(?<![A-Za-z0-9_.])(\d[\d,]*(?:\.\d+)?)(?: ?(million|billion|万|亿))?")
SCALES = {"": 1, "million": 10**6, "billion": 10**9, "万": 10**4, "亿": 10**8}


class Section(NamedTuple):
    """A heading with its level, and what stands below it."""

    level: int
    title: str
    text: str

    @property
    def prose(self) -> str:
        """All but fenced blocks, comments and generated tables."""
        text = re.sub(r"<!-- results: .*?<!-- end -->", "", self.text, flags=re.S)
        return FENCED.sub("", text)

    @property
    def code(self) -> set[str]:
        """What stands between backticks."""
        return set(re.findall(r"`([^`]+)`", self.prose.replace("\n", " ")))

    @property
    def links(self) -> set[str]:
        """Files and addresses that links lead to, whatever the language; not links between languages."""
        targets = re.findall(r"\]\(([^)\s]+)\)", self.prose)
        return {re.sub(r"_CN(?=\.md)", "", target.partition("#")[0]) for target in targets if "://" in target
                or target.partition("#")[0]}  # fmt: skip

    @property
    def figures(self) -> set[float]:
        """Numbers in figures, of prose and tables, not those within code and addresses."""
        text = re.sub(r"`[^`]*`|\]\([^)]*\)", " ", self.prose)
        return {float(number.replace(",", "").rstrip(".")) * SCALES[scale] for number, scale in FIGURE.findall(text)}


def sections(path: Path) -> list[Section]:
    """The page cut at its headings; those within fenced blocks are none."""
    found, level, title, lines, fenced = [], 0, "", [], False
    for line in path.read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        heading = None if fenced else re.fullmatch(r"(#+) (.*)", line)
        if heading:
            found.append(Section(level, title, "\n".join(lines) + "\n"))
            level, title, lines = len(heading[1]), heading[2], []
        else:
            lines.append(line)
    return [*found[1:], Section(level, title, "\n".join(lines) + "\n")]


def bare(line: str, language: str) -> str:
    """A line without what is said of it behind: a comment, or in plain text whatever stands far off."""
    line = re.sub(r"(^|\s+)#.*$", "", line).rstrip()
    return re.sub(r"(?<=\S)\s{2,}\S.*$", "", line) if not language else line


def blocks(path: Path) -> list[tuple[str, list[str]]]:
    """Language and lines of each fenced block, without what is said of them."""
    return [
        (
            language,
            [line for line in (bare(line, language) for line in re.sub(r"\\\n\s*", " ", text).splitlines()) if line],
        )
        for language, text in FENCED.findall(path.read_text(encoding="utf-8"))
    ]


def commands(path: Path) -> list[str]:
    """What a reader pastes, in its order: lines of a shell, and whole pieces of Python that begin with a line break."""
    found = []
    for language, lines in blocks(path):
        if language == "python":
            found.append("\n".join(["", *lines]))
        elif language in ("", "bash"):
            found += lines
    return found


def anchors(path: Path) -> set[str]:
    """Names of a page's headings as links have them on GitHub and Gitee."""
    names = [re.sub(r"[^\w\- ]", "", section.title.lower()).replace(" ", "-") for section in sections(path)]
    return {name for name in names}
