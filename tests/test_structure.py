"""The layout's rules, read off the files."""

import ast
import re
import sys
from pathlib import Path

import pytest

from benchmarks import results

ROOT = Path(__file__).parents[1]
# Wings and doors from the ground up: each imports from its own line and those above it alone.
LEVELS = [
    "src.base",
    "src.model_utils",
    "src.engines",
    "src.rows",
    "src.data",
    "src.metrics src.preprocessing",
    "src.ranks",
    "src.network",
    "src.dlrm src.dataset src.callback",
    "src.checkpoints",
    "src.training",
    "src.export src.report",
    "src.doctor src.publishing",
    "src.run src.scorer src.options src.days.options",
    "train eval export preprocess postprocess mindspore_hub_conf src.launch src.preprocess_data src.synthetic "
    "src.table_accuracy src.report.__main__ src.doctor.__main__ src.fit src.days",
]
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names.split()}
FILES = sorted([*ROOT.glob("*.py"), *(ROOT / "src").rglob("*.py")])
SOURCES = [*FILES, *(ROOT / "src").rglob("*.cc"), *(ROOT / "src").rglob("*.h")]
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_ARGUMENTS = 350, 60, 8
OF_FRAMES = {"src.fit", "src.scorer", "src.rows.raw_rows", "src.rows.cells.frames"}
MOST_FILES = {"src": 12}  # 14 in a wing


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def level_of(module):
    """Of the longest name in LEVELS that the module has, or stands below; None for src itself."""
    parts = module.split(".")
    names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((LEVEL_OF[name] for name in names if name in LEVEL_OF), None)


def imports_of(path, late=True):
    """Modules that a file imports, at its top or, if late ones count, within."""
    found, tree = set(), ast.parse(path.read_text())
    for node in ast.walk(tree) if late else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if (ROOT / (name.replace(".", "/") + ".py")).is_file() else node.module for name in inner}
    return found


def upward(module, imported):
    """Those of the imported modules that stand above a module."""
    ours = [name for name in imported if name.split(".")[0] == "src" and name != "src"]
    return [name for name in ours if level_of(name) > level_of(module)]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_downward(path):
    module = module_of(path)
    if module == "src":
        return
    assert level_of(module) is not None, f"{module} has no place in the layout"
    assert not upward(module, imports_of(path))


def test_an_upward_import_is_seen():
    assert upward("src.base.logs", {"src.base.errors", "src.metrics.binary"}) == ["src.metrics.binary"]
    assert upward("src.network.layers", {"src.dlrm"}) == ["src.dlrm"]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_each_concern_has_one_place(path):
    name, module, imports = path.relative_to(ROOT).as_posix(), module_of(path), imports_of(path)
    if module.startswith("src.network") or module in ("src.dlrm", "src.training.step", "src.training.optimizers"):
        refused = ("src.callback", "src.base.files", "src.base.locks", "src.data", "src.dataset", "src.options")
        allowed = "src.data.layout"  # which ids a row has, not where rows are
        unwanted = [one for one in imports if one.startswith(refused) and one != allowed]
        assert not unwanted, "a model knows no option, file or callback"
    if "src.options" in imports:
        assert level_of(module) == len(LEVELS) - 1, "only a main touches the options of a program"
    assert "mindspore.dataset" not in imports or name == "src/dataset.py"
    assert "mindspore.mindrecord" not in imports or name == "src/data/records.py"
    # pandas, with pyarrow, takes 0.3 s to import, which only who hands over DataFrames should wait for.
    assert module in OF_FRAMES or not imports_of(path, late=False) & {"pandas", "pyarrow", *OF_FRAMES}
    # native.py reads CXX, the compiler; launch.py hands its surroundings on to the ranks.
    if not name.startswith("src/model_utils/") and name not in ("src/base/native.py", "src/launch.py"):
        assert not re.search(r"\benviron\b", path.read_text())


def test_wings_and_files_are_small():
    for folder in {path.parent for path in SOURCES if path.parent != ROOT}:
        files = [path for path in folder.iterdir() if path.is_file()]
        assert len(files) <= MOST_FILES.get(folder.relative_to(ROOT).as_posix(), 14), folder
    for path in SOURCES:
        assert len(path.read_text().splitlines()) <= MOST_LINES, path


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_functions_are_short_and_take_few_arguments(path):
    tree = ast.parse(path.read_text())
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    cells = [node for node in classes if any("Cell" in ast.unparse(base) for base in node.bases)]
    of_cells = {id(function) for cell in cells for function in cell.body}
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            assert function.end_lineno - function.lineno + 1 <= MOST_LINES_OF_A_FUNCTION, function.name
            names = [one.arg for one in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
            few = len([name for name in names if name not in ("self", "cls")]) <= MOST_ARGUMENTS
            assert few or id(function) in of_cells, f"{function.name} takes {len(names)} arguments"


@pytest.mark.parametrize("name", sorted(path.name for path in ROOT.glob("*.py")))
def test_programs_are_short(name):
    assert len((ROOT / name).read_text().splitlines()) < 100


def test_importing_a_program_reads_no_options(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pytest", "--no-such-option"])
    for name in ("train", "eval"):
        sys.modules.pop(name, None)
        __import__(name)


def test_the_map_of_the_house_names_every_room():
    """In docs/architecture.md, below the heading of its wing, and no room that is not there."""
    text = (ROOT / "docs/architecture.md").read_text()
    headings = re.split(r"\n\*\*`(\S+)/`\*\*", text.split("## The way of a row")[0])
    parts = {
        wing: part for wing, part in zip(headings[1::2], headings[2::2]) if (ROOT / wing / "__init__.py").is_file()
    }
    named = {wing: set(re.findall(r"^\| (`.*?`) \|", part, re.M)) for wing, part in parts.items()}
    for wing, firsts in named.items():
        names = set(re.findall(r"`([\w/.]+)`", " ".join(firsts)))
        files = {path.name for path in (ROOT / wing).iterdir() if path.suffix in (".py", ".cc")} - {"__init__.py"}
        assert files == {name for name in names if not name.endswith("/")}, wing
        assert all((ROOT / wing / name).is_dir() for name in names if name.endswith("/")), wing
    assert set(named) == {f"src/{path.name}" for path in (ROOT / "src").iterdir() if (path / "__init__.py").is_file()}
    for name in re.findall(r"`(src/[\w/.]+\.py)`", text):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("readme", results.READMES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_readme_tables_are_those_of_the_result_files(readme):
    text = readme.read_text()
    assert "<!-- results:" in text
    assert results.with_tables(text, results.is_chinese(readme)) == text, "run python benchmarks/results.py"
