"""DLRM on MindSpore: the library behind the programs at the top of the repository."""

import importlib.util
import sys

_missing = [name for name in ("mindspore", "numpy", "pandas", "tqdm", "yaml") if importlib.util.find_spec(name) is None]
if _missing:  # one line instead of a traceback, for who has just cloned the repository
    print(
        f"error: {sys.executable} has no {', '.join(_missing)}: use the Python of .venv, which "
        f"scripts/run_quickstart.sh makes, or pip install -r requirements.txt",
        file=sys.stderr,
    )
    sys.exit(2)
