"""The page of a day, and of all days up to it."""

from collections.abc import Sequence

from src.days.model_folder import ACCEPTED, Line
from src.metrics.drift import MUCH
from src.report.plots import Axes, Series, number, plot
from src.report.style import page, section, table, tile

_TABLE_FIELDS = 6  # of the largest tables, which a plot shows


def page_of(history: Sequence[Line]) -> str:
    """HTML of the last day of a history, beside those before it."""
    line = history[-1]
    state = line["state"] + (f": {line['reason']}" if line["reason"] else "")
    body = f"<h1>Day {line['day']}</h1>" + _tiles(line) + section("Days", f"The last one is {state}.", _days(history))
    return page(f"day {line['day']}", body + section("Columns", _about_columns(line), _columns(line)))


def lines_of(line: Line) -> list[str]:
    """The same in a few lines for people."""
    found = []
    if "progressive" in line:
        one, before, after = line["progressive"], line["before"], line["after"]
        found = [
            f"day {line['day']}, before training on it: {one['rows']} rows, auc {number(one['auc'], 5)}, logloss "
            f"{number(one['logloss'], 5)}, unseen values {_mean(line['unseen_before']):.2%}",
            f"held-out rows, {after['rows']}: auc {number(before['auc'], 5)} before, {number(after['auc'], 5)} after; "
            f"logloss {number(before['logloss'], 5)} before, {number(after['logloss'], 5)} after",
        ]
        if moved := line.get("moved"):
            found.append(f"moved since the earlier day: {', '.join(moved)}")
    else:
        after = line["after"]
        found = [
            f"day {line['day']}, held-out rows, {after['rows']}: auc {number(after['auc'], 5)}, logloss "
            f"{number(after['logloss'], 5)}"
        ]
    state = "is in use" if line["state"] == ACCEPTED else f"is refused, and the earlier one stays: {line['reason']}"
    return [*found, f"the model of day {line['day']} {state}"]


def _mean(shares: dict[str, float]) -> float:
    return sum(shares.values()) / max(len(shares), 1)


def _tiles(line: Line) -> str:
    after, before, whole = line["after"], line.get("before"), line.get("progressive")
    tiles = [
        tile(f"{shown} after", number(after[name]), f"{number(after['rows'])} held-out rows"
             + (f"; {number(before[name])} before" if before else ""), first=True)
        for name, shown in (("auc", "AUC"), ("logloss", "logloss"))
    ]  # fmt: skip
    if whole:
        tiles += [
            tile("AUC of the earlier model", number(whole["auc"]), f"all {number(whole['rows'])} rows, none seen"),
            tile("unseen values", f"{_mean(line['unseen_before']):.2%}", "before the vocabulary grew"),
        ]
    growth = line["growth"]
    changed = f"{number(growth['new'] + growth['dealt'])} values got one, {number(growth['freed'])} lost it"
    tiles.append(tile("table rows", number(sum(line["table_rows"].values())), changed))
    tiles.append(tile("clicks", f"{line['label_mean']:.2%}", f"{number(sum(line['rows'].values()))} rows"))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _days(history: Sequence[Line]) -> str:
    def series(name: str, when: str, metric: str) -> Series:
        return Series(name, [(one["day"], one[when][metric]) for one in history if when in one], "dots")

    figures = [
        plot(f"{metric}-days", shown, [
            series("earlier model, all rows", "progressive", metric),
            series("earlier, held-out rows", "before", metric),
            series("new, held-out rows", "after", metric),
        ], Axes("day", shown))
        for metric, shown in (("auc", "AUC"), ("logloss", "Logloss"))
    ]  # fmt: skip
    unseen = [
        Series(name, [(one["day"], _mean(one[key])) for one in history if key in one], "dots")
        for name, key in (("before growth", "unseen_before"), ("held-out rows, after", "unseen_after"))
    ]
    largest = sorted(history[-1]["table_rows"].items(), key=lambda item: -item[1])[:_TABLE_FIELDS]
    growth = [Series(name, [(one["day"], one["table_rows"].get(name)) for one in history]) for name, _ in largest]
    clicks = [Series("clicks", [(one["day"], one["label_mean"]) for one in history], "dots")]
    figures += [
        plot("unseen-days", "Unseen values", unseen, Axes("day", "share")),
        plot("rows-days", "Rows of the largest tables", growth, Axes("day", "rows")),
        plot("clicks-days", "Label mean", clicks, Axes("day", "share of clicks")),
    ]
    heads = ["day", "state", "files", "rows", "clicks", "AUC unseen rows", "logloss", "AUC held out, before", "after",
             "table rows", "columns that moved"]  # fmt: skip
    rows = [
        [str(one["day"]), one["state"], ", ".join(file["name"] for file in one["files"]),
         number(sum(one["rows"].values())), number(one["label_mean"]), *_cells(one, "progressive", ("auc", "logloss")),
         *_cells(one, "before", ("auc",)), *_cells(one, "after", ("auc",)), number(sum(one["table_rows"].values())),
         number(len(one["moved"])) if "moved" in one else "-"]
        for one in reversed(history)
    ]  # fmt: skip
    return f'<div class="plots">{"".join(figures)}</div>{table(heads, rows)}'


def _cells(line: Line, when: str, metrics: Sequence[str]) -> list[str]:
    return [number(line[when][name]) if when in line else "-" for name in metrics]


def _about_columns(line: Line) -> str:
    if "psi" not in line:
        return "There is no earlier day to compare with."
    return (
        f"PSI is the population stability index against the rows of the earlier model's day, by its vocabulary; above "
        f"{MUCH} a column has moved much. Label mean {number(line['label_mean'])}, there "
        f"{number(line['label_mean_earlier'])}."
    )


def _columns(line: Line) -> str:
    before, after, psi = line.get("unseen_before", {}), line["unseen_after"], line.get("psi", {})
    names = sorted({**psi, **after}, key=lambda name: -psi.get(name, 0.0))
    rows = [
        [name, number(psi.get(name)), "yes" if name in line.get("moved", ()) else "", number(before.get(name)),
         number(after.get(name)), number(line["table_rows"].get(name))]
        for name in names
    ]  # fmt: skip
    return table(["column", "PSI", "moved", "unseen before", "unseen after", "table rows"], rows)
