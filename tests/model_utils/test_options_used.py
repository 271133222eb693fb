"""Every option is used: code reads it off its spec, beyond the rules that only check it."""

import ast
import dataclasses
import functools
from pathlib import Path

import pytest

from src.options import PROGRAMS

ROOT = Path(__file__).parents[2]
SPECS = {
    spec.type.__name__: spec.type for program in PROGRAMS.programs.values() for spec in dataclasses.fields(program)
}
# But the YAML file's name, which is read before there is a spec.
OPTIONS = [(name, one.name) for name, spec in SPECS.items() if name != "YamlSpec" for one in dataclasses.fields(spec)]
CHECKS = ("__post_init__", "check_")


def sources():
    """The text of each file of the programs, by name."""
    files = [*ROOT.glob("*.py"), *(ROOT / "src").rglob("*.py")]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in files}


class Types:
    """Classes of the values in a program's text, as far as its annotations tell."""

    def __init__(self, trees):
        self.attributes, self.results = {}, {}  # by class and attribute; by name of the function
        for tree in trees:
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    self._remember(node)
                elif isinstance(node, ast.FunctionDef):
                    self.results.setdefault(node.name, self.named(node.returns))

    def _remember(self, owner):
        for node in owner.body:
            if isinstance(node, ast.AnnAssign):
                self.attributes[owner.name, node.target.id] = self.named(node.annotation)
            elif isinstance(node, ast.FunctionDef) and node.name == "__init__":
                given = {one.arg: self.named(one.annotation) for one in node.args.args}
                for inner in ast.walk(node):
                    for target, value in assigned(inner):
                        if isinstance(target, ast.Attribute) and isinstance(value, ast.Name) and given.get(value.id):
                            self.attributes[owner.name, target.attr] = given[value.id]

    @staticmethod
    def named(annotation):
        """The class that an annotation names, None or not; "" for none."""
        text = ast.unparse(annotation).strip("'\"") if annotation else ""
        return text.removesuffix(" | None").rpartition(".")[2]

    def of(self, node, names):
        """The class of an expression, where these names have theirs."""
        if isinstance(node, ast.Name):
            return names.get(node.id, "")
        if isinstance(node, ast.Attribute):
            return self.attributes.get((self.of(node.value, names), node.attr), "")
        if isinstance(node, ast.BoolOp):
            return next(filter(None, (self.of(value, names) for value in node.values)), "")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            made = node.args[0].id if node.func.id == "resolve" and isinstance(node.args[0], ast.Name) else node.func.id
            return self.results.get(made, made)
        return ""


def assigned(node):
    """The targets of an assignment and their values, pair by pair."""
    for target in node.targets if isinstance(node, ast.Assign) else ():
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts)
        else:
            yield target, node.value


tree_of = functools.cache(ast.parse)


def reads(texts):
    """Options that code reads: (class of the spec, name).

    Where a spec reads its own, that counts if something asks for what it makes of them, and not in a check.
    """
    trees = [tree_of(text) for text in texts.values()]
    types, found, own = Types(trees), set(), {}

    def walk(node, names, owner, method):
        if isinstance(node, ast.ClassDef):
            owner = node.name
        if isinstance(node, ast.FunctionDef):
            method = node.name if owner in SPECS or owner.endswith("Options") else ""
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            names = names | {one.arg: types.named(one.annotation) for one in given} | {"self": owner}
        for target, value in assigned(node):
            if isinstance(target, ast.Name):
                names[target.id] = types.of(value, names)
        if isinstance(node, ast.Attribute) and not method.startswith(CHECKS):
            read = types.of(node.value, names), node.attr
            own.setdefault((owner, method), set()).add(read) if method else found.add(read)
        for child in ast.iter_child_nodes(node):
            walk(child, names, owner, method)

    for tree in trees:
        walk(tree, {}, "", "")
    return found.union(*(read for asked, read in own.items() if asked in found))


@pytest.fixture(scope="module")
def read():
    return reads(sources())


@pytest.mark.parametrize(("spec", "name"), OPTIONS)
def test_every_option_is_used(read, spec, name):
    assert (spec, name) in read, "nothing reads it but a check"


READ_NO_MORE = {
    ("OptimizationSpec", "dropout"): "optimization.dropout",
    ("OptimizationSpec", "mlp_optimizer"): "optimization.rules",
    ("ScheduleSpec", "lr_power"): "schedule.lr_power",
    ("ComputeSpec", "cpu_kernels"): "compute.cpu_kernels",
}


def test_options_that_are_read_no_more_are_seen(read):
    """Though their specs still check them, and other objects have attributes of their names."""
    texts = sources()
    for used in READ_NO_MORE.values():
        assert any(used in text for text in texts.values())
        other = f"{used.partition('.')[0]}.another"
        texts = {file: text.replace(used, other) for file, text in texts.items()}
    assert read - reads(texts) >= set(READ_NO_MORE)
