"""The run around the steps: what it imports, and who may be at work in a folder."""

import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize("module", ["src.preprocessing.steps", "src.preprocessing.run", "src.data.records"])
def test_counting_needs_no_mindspore(module):
    """Its workers are forked from a process that has imported no more than this."""
    code = f"import sys, {module}; assert 'mindspore' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_names_of_transforms_are_known_without_pandas():
    """They are choices of an option, which every program reads first."""
    code = "import sys, src.data.transforms; assert 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
