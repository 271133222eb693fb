"""Pages in two languages say the same: sections, commands, names in code, figures and links."""

import re

import pytest
from conftest import ROOT
from pages import anchors, blocks, sections

from benchmarks import results

PAIRS = [(path, path.with_name(path.name.replace("_CN", ""))) for path in sorted([*ROOT.glob("*_CN.md"),
                                                                              *ROOT.glob("docs/*_CN.md")])]  # fmt: skip
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks/README.md"])


def names(paths):
    return [path.relative_to(ROOT).as_posix() for path in paths]


def by_section(path, part):
    """Of each section: its place, and what a part of it says; one word for all languages where its text has none."""
    return [(number, section.level, getattr(section, part)) for number, section in enumerate(sections(path))]


def different(pair, part):
    """What a section of one page has and the other one's has not: (number, title, only here, only there)."""
    here, there = map(sections, pair)
    return [
        (number, one.title, missing, surplus)
        for number, (one, other) in enumerate(zip(here, there))
        for missing, surplus in [(getattr(one, part) - getattr(other, part), getattr(other, part) - getattr(one, part))]
        if missing or surplus
    ]


def test_the_pages_most_asked_for_are_there():
    assert {"README_CN.md", "docs/data_CN.md", "docs/several_ranks_CN.md"} <= {name for name in names(PAGES)}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].name)
def test_both_languages_have_the_same_sections(pair):
    assert [section.level for section in sections(pair[0])] == [section.level for section in sections(pair[1])]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].name)
def test_both_languages_have_the_same_commands(pair):
    assert blocks(pair[0]) == blocks(pair[1])


@pytest.mark.parametrize("part", ["code", "figures", "links"])
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].name)
def test_both_languages_name_the_same(pair, part):
    assert different(pair, part) == []


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].name)
def test_both_languages_lead_to_each_other(pair):
    for one, other in (pair, pair[::-1]):
        assert f"]({other.name})" in "\n".join(one.read_text().splitlines()[:4])


def test_what_differs_is_seen(tmp_path):
    english, chinese = tmp_path / "a.md", tmp_path / "a_CN.md"
    english.write_text("# A\n\n33.8 million rows by `--lr=1`, [here](b.md#c), 12 in all\n")
    chinese.write_text("# 甲\n\n3380 万行，`--lr=1`，见[此处](b_CN.md#丙)，共 12 个\n")
    assert [different((chinese, english), part) for part in ("code", "figures", "links")] == [[], [], []]
    chinese.write_text("# 甲\n\n3381 万行，`--lr=2`，见[此处](d_CN.md#丙)，共 12 个\n")
    assert [len(different((chinese, english), part)) for part in ("code", "figures", "links")] == [1, 1, 1]


def test_a_table_has_the_chosen_rows_and_columns_in_words_that_are_known():
    row, column = "the whole recipe", "seconds a run"
    whole = results.table_of("recipe")
    chosen = results.table_of("recipe", [row], ["recipe", column]).splitlines()
    assert chosen[:2] == [f"| recipe | {column} |", "|---|---|"]
    assert chosen[2].split(" | ")[1] == f"{whole.splitlines()[2].split(' | ')[-1]}"
    assert chosen[-1] == whole.splitlines()[-1]
    assert "完整方案" in results.table_of("recipe", [row], ["recipe", column], chinese=True)
    with pytest.raises(KeyError, match="translations.yaml has no 'no buckets'"):
        results.table_of("recipe", ["no buckets"], chinese=True)


def test_a_sentence_has_the_first_rows_figures():
    place = "<!-- results: recipe : It reached {auc}: -->\nolder\n<!-- end -->"
    first, found, end = results.with_tables(place).splitlines()
    whole = results.table_of("recipe").splitlines()
    assert found == f"It reached {whole[2].split(' | ')[1]}: {whole[-1]}"
    assert results.with_tables("\n".join([first, found, end])) == "\n".join([first, found, end])
    assert results.with_tables(place, chinese=True).splitlines()[1].endswith("。")
    with pytest.raises(KeyError, match="speed"):
        results.sentence_of("recipe", "{speed}")


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target
