"""The layout's rules, read off the imports."""

import ast
import sys
from pathlib import Path

import pytest

from benchmarks import results

ROOT = Path(__file__).parents[1]
PROGRAMS = {
    "train.py",
    "eval.py",
    "export.py",
    "preprocess.py",
    "postprocess.py",
    "src/preprocess_data.py",
    "src/table_accuracy.py",
    "src/synthetic.py",
    "src/report.py",
    "src/run_report.py",
    "src/launch.py",
}
FILES = sorted([*ROOT.glob("*.py"), *(ROOT / "src").rglob("*.py")])

# Each file may import those that stand above it.
ORDER = [
    "src.errors", "src.stops", "src.machine", "src.locks", "src.files", "src.native", "src.parallel", "src.ranks",
    "src.placement",
    "src.model_utils", "src.model_utils.config", "src.model_utils.device_target", "src.metrics", "src.score_curves",
    "src.bootstrap", "src.logs", "src.sealed", "src.records", "src.npz", "src.criteo", "src.raw_files", "src.schema",
    "src.raw_rows", "src.vocabulary", "src.numeric", "src.encoder", "src.slices", "src.manifest", "src.planted",
    "src.synthetic", "src.journal", "src.preprocess_steps", "src.preprocessing", "src.preprocess_data", "src.dataset",
    "src.scored_files", "src.cpu_kernels", "src.exchange", "src.embedding", "src.mixed_dims", "src.dropout",
    "src.layers", "src.cross", "src.dlrm", "src.optimizers", "src.schedule", "src.step_counter", "src.averaging",
    "src.train_step", "src.evaluation", "src.checkpoint_file", "src.checkpoint", "src.run_folder", "src.resume",
    "src.callback", "src.report_plots", "src.report_style", "src.report_content", "src.report_page", "src.report_files",
    "src.report_compare", "src.report", "src.training", "src.run_report", "src.rank_table", "src.launch",
    "src.mindir", "src.table_file", "src.table_accuracy", "src.inference_graph", "src.calibration", "src.export_folder",
    "src.rows_to_score", "src.scorer", "train", "eval", "export", "preprocess", "postprocess",
]  # fmt: skip
NETWORK = {
    "src.cpu_kernels", "src.embedding", "src.mixed_dims", "src.dropout", "src.layers", "src.cross", "src.dlrm",
    "src.optimizers", "src.step_counter", "src.averaging", "src.train_step", "src.metrics",
}  # fmt: skip


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path):
    """Modules that a file imports, at its top or within."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if (ROOT / (name.replace(".", "/") + ".py")).is_file() else node.module for name in inner}
    return found


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_downward(path):
    module = module_of(path)
    if module == "src":
        return
    assert module in ORDER, f"{module} has no place in the order of the layout"
    for imported in imports_of(path):
        if imported.split(".")[0] == "src":
            assert ORDER.index(imported) < ORDER.index(module), f"{module} imports {imported}, which stands above it"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_each_concern_has_one_place(path):
    name, imports = path.relative_to(ROOT).as_posix(), imports_of(path)
    if module_of(path) in NETWORK:
        refused = {"src.callback", "src.checkpoint", "src.manifest", "src.dataset", "src.model_utils.config"}
        assert not imports & refused
    if "src.model_utils.config" in imports:
        assert name in PROGRAMS, "only a main touches Config"
    assert "mindspore.dataset" not in imports or name == "src/dataset.py"
    assert "mindspore.mindrecord" not in imports or name == "src/preprocess_steps.py"
    # native.py reads CXX, the compiler; launch.py hands its surroundings on to the ranks.
    if not name.startswith("src/model_utils/") and name not in ("src/native.py", "src/launch.py"):
        assert "environ" not in path.read_text()


@pytest.mark.parametrize("name", sorted(path.name for path in ROOT.glob("*.py")))
def test_programs_are_short(name):
    assert len((ROOT / name).read_text().splitlines()) < 100


def test_importing_a_program_reads_no_options(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pytest", "--no-such-option"])
    for name in ("train", "eval"):
        sys.modules.pop(name, None)
        __import__(name)


@pytest.mark.parametrize("readme", results.READMES, ids=lambda path: path.parent.name)
def test_readme_tables_are_those_of_the_result_files(readme):
    text = readme.read_text()
    assert "<!-- results:" in text
    assert results.with_tables(text) == text, "run python benchmarks/results.py"
