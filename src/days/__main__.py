"""A model's next day: `python -m src.days MODEL NEW_FILES [--fail_below=0.01] [--OPTION=VALUE]`.

Codes the new rows and lets the vocabulary grow, evaluates the model in use on rows that it has never seen, trains on
with them, evaluates and exports, and takes the new model into use unless it is worse by more than fail_below on
held-out rows: then the exit code is 1, and the earlier model stays. The first day makes MODEL. NEW_FILES are as
data_path of src/preprocess_data.py; options are of that, train.py and export.py. What a first day is given holds for
all days. A day that was stopped goes on when the same is typed again.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

if __name__ == "__main__":
    from src.base.stops import end_at_once

    end_at_once()

from src.base.errors import InputError, run
from src.base.events import happens
from src.base.files import whole_file
from src.base.sealed import check_json, sealed_json
from src.days.day import VERDICT, Day, plan_in
from src.days.model_folder import ACCEPTED, DAYS, PAGE, Line, ModelFolder, check_new, identities
from src.days.page import lines_of, page_of
from src.days.recipe import Recipe, flags_of
from src.days.verdict import line_of
from src.rows.raw_files import find_raws


def next_day(place: Path, data_path: str, flags: dict) -> Line:
    """Do a model's next day, or what is left of one that was stopped.

    Args:
        place: the model's folder.
        data_path: the new raw files.
        flags: options by name; those of a first day hold for all.

    Returns:
        What the history says of it.

    Raises:
        AlreadyDone: the model has had this day.
        InputError: what a program would refuse, a row that was trained on before, or another day that was stopped.
    """
    flags = dict(flags)
    resume = bool(flags.pop("resume", True))
    model = ModelFolder(place.absolute())
    files = identities(find_raws(data_path))
    with model.held():
        history = model.history()
        number = len(history) + 1
        begun, earlier = plan_in(model.folder_of(number)), model.current
        if earlier == model.folder_of(number):  # its model is in use, but the history has not got it yet
            earlier = model.place / DAYS / begun["earlier"] if begun["earlier"] else None
        recipe = Recipe.of(model, flags, earlier is None)
        day = Day(model, number, recipe, data_path, tuple(files), earlier)
        check_new(history, files, day.recipe.spec.retry)
        day.begin(resume)
        for step in (day.prepare_rows, day.score_before, day.train, day.score_after, day.export):
            step()
        return _end(day)


def _end(day: Day) -> Line:
    """Decide once which model is in use, and tell of it; what a killed process has not done of it is done again."""
    model, verdict = day.model, day.folder / VERDICT
    if verdict.is_file():
        line = check_json(json.loads(verdict.read_text(encoding="utf-8")), verdict, "remove it")
    else:
        line = line_of(day)
        with whole_file(verdict, sync=True) as file:
            file.write(sealed_json(line).encode())
        happens("which model is in use is decided")
    if line["state"] == ACCEPTED:
        model.use(line["name"])
        happens("the new model is in use")
    text = page_of([*model.history()[: line["day"] - 1], line], day.recipe.values.get("language", "en")).encode()
    for path in (day.folder / PAGE, model.place / PAGE):
        with whole_file(path) as file:
            file.write(text)
    model.append(line)  # from now on the day has ended
    happens("the history has the day")
    model.forget(day.recipe.spec.keep_days)
    return line


def main(argv: Sequence[str]) -> int:
    """Do the next day; 0, or 1 if the new model was refused."""
    named = [word for word in argv if not word.startswith("-")]
    flags = flags_of([word for word in argv if word.startswith("-")])
    if len(named) != 2:
        raise InputError(f"{len(named)} of 2 arguments given: python -m src.days MODEL NEW_FILES --OPTION=VALUE")
    place, data_path = named
    line = next_day(Path(place), data_path, flags)
    print("\n".join(lines_of(line)))
    print(f"report: {Path(place) / PAGE}")
    return 0 if line["state"] == ACCEPTED else 1


if __name__ == "__main__":
    run(main, goes_on=True)
