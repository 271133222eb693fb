"""docs/reference.md beside what it tells of: options with their defaults, and files."""

import re

import pytest
import yaml
from conftest import ROOT
from pages import sections

from src.options import TrainOptions, resolve

TEXT = {section.title: section.text for section in sections(ROOT / "docs/reference.md")}
OPTIONS = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| ", TEXT["Main options"], re.M)


def value_of(argv, name):
    return next(vars(spec)[name] for spec in vars(resolve(TrainOptions, argv)).values() if name in vars(spec))


def as_read(cell):
    value = yaml.safe_load(cell)
    return "" if value is None else tuple(value) if isinstance(value, list) else value


@pytest.mark.parametrize(("name", "default", "on_a_cpu"), OPTIONS, ids=[name for name, _, _ in OPTIONS])
def test_defaults_are_the_programs(name, default, on_a_cpu):
    assert value_of([], name) == as_read(default)
    assert value_of(["--device_target=CPU"], name) == as_read(on_a_cpu or default)


def test_the_recipe_for_a_cpu_changes_no_other_main_option():
    assert len(OPTIONS) >= 20
    recipe = yaml.safe_load((ROOT / "cpu_config.yaml").read_text())
    told = {name for name, _, on_a_cpu in OPTIONS if on_a_cpu}
    assert told == {name for name in recipe if name in {option for option, _, _ in OPTIONS}}


def test_files_of_the_repository_are_there_and_all_are_told():
    (tree,) = re.findall(r"```text\n(.*?)```", TEXT["Files of the repository"], re.S)
    heads = [re.split(r"\s{2,}", line)[0] for line in tree.splitlines()]
    named = [name for head in heads for name in re.split(r", | \.\.\. ", head)]
    patterns = [name if not name.startswith(".") else f"mindspore_hub_conf{name}" for name in named]
    found = {path for pattern in patterns for path in ROOT.glob(pattern.rstrip("/"))}
    assert all(any(ROOT.glob(pattern.rstrip("/"))) for pattern in patterns)
    top = {path for pattern in ("*.py", "*.yaml", "scripts/run_*.sh", "src/*.py") for path in ROOT.glob(pattern)}
    assert top - {ROOT / "src/__init__.py"} <= found
