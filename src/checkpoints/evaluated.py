"""What eval.py found of a checkpoint, which stays beside it for its report and for whoever publishes it.

checkpoint/evaluations.json    what report/content.py says of each evaluation's scores, the newest last

The file names the checkpoint that it is of, so that figures of an earlier one in the same place are never taken for
this one's. Read without MindSpore.
"""

import json
from pathlib import Path
from typing import Any

from src.base.errors import InputError
from src.base.files import whole_file
from src.base.sealed import check_json, sealed_json
from src.checkpoints.names import EVALUATIONS
from src.checkpoints.parts import identity_of

_VERSION, _MOST = 1, 10
_REMEDY = "remove it, and evaluate the checkpoint again"


def evaluations_of(checkpoint: Path) -> list[dict[str, Any]]:
    """The evaluations of a checkpoint, the newest last; none where there is no file of them, or one of another network.

    Raises:
        InputError: the file is damaged.
    """
    path = checkpoint.with_name(EVALUATIONS)
    if not path.is_file():
        return []
    try:
        content = check_json(dict(json.loads(path.read_text(encoding="utf-8"))), path, _REMEDY)
        same = content["version"] == _VERSION and content["checkpoint"] == identity_of(checkpoint)
        return list(content["evaluations"]) if same else []
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is no list of evaluations ({error!r}): {_REMEDY}") from None


def keep_evaluation(checkpoint: Path, content: dict[str, Any]) -> None:
    """Put an evaluation behind those of a checkpoint, in the place of an earlier one of the same rows.

    Args:
        checkpoint: the file, of which there may be several parts.
        content: in JSON's types; "rows_identity" tells rows from others.

    Raises:
        OSError: the folder can't be written.
    """
    try:
        before = evaluations_of(checkpoint)
    except InputError:
        before = []  # a damaged file has nothing to lose
    others = [one for one in before if one["rows_identity"] != content["rows_identity"]]
    kept = {"version": _VERSION, "checkpoint": identity_of(checkpoint), "evaluations": [*others, content][-_MOST:]}
    with whole_file(checkpoint.with_name(EVALUATIONS)) as file:
        file.write(sealed_json(kept).encode())
