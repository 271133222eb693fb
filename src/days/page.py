"""The page of a day, and of all days up to it."""

from collections.abc import Sequence

from src.days.model_folder import ACCEPTED, Line
from src.metrics.drift import MUCH
from src.report.plots import Axes, Series, number, plot
from src.report.style import page, section, table, tile
from src.report.words import Words

_TABLE_FIELDS = 6  # of the largest tables, which a plot shows


def page_of(history: Sequence[Line], language: str = "en") -> str:
    """HTML of the last day of a history, beside those before it, in a language of LANGUAGES."""
    say, line = Words(language), history[-1]
    state = say.of(line["state"]) + (f": {line['reason']}" if line["reason"] else "")
    body = f"<h1>{say('Day {day}', day=line['day'])}</h1>{_tiles(say, line)}"
    body += section(say("Days"), say("The last one is {state}.", state=state), _days(say, history))
    body += section(say("Columns"), _about_columns(say, line), _columns(say, line))
    return page(say("day {day}", day=line["day"]), body, language)


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


def _tiles(say: Words, line: Line) -> str:
    after, before, whole = line["after"], line.get("before"), line.get("progressive")
    tiles = [
        tile(say("{metric} after", metric=shown), number(after[name]),
             say("{rows} held-out rows", rows=number(after["rows"]))
             + (say("; {before} before", before=number(before[name])) if before else ""), first=True)
        for name, shown in (("auc", "AUC"), ("logloss", "logloss"))
    ]  # fmt: skip
    if whole:
        tiles += [
            tile(say("AUC of the earlier model"), number(whole["auc"]),
                 say("all {rows} rows, none seen", rows=number(whole["rows"]))),
            tile(say("unseen values"), f"{_mean(line['unseen_before']):.2%}", say("before the vocabulary grew")),
        ]  # fmt: skip
    growth = line["growth"]
    changed = say("{got} values got one, {lost} lost it", got=number(growth["new"] + growth["dealt"]),
                  lost=number(growth["freed"]))  # fmt: skip
    tiles.append(tile(say("table rows"), number(sum(line["table_rows"].values())), changed))
    rows = say("{rows} rows", rows=number(sum(line["rows"].values())))
    tiles.append(tile(say("click rate"), f"{line['label_mean']:.2%}", rows))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _days(say: Words, history: Sequence[Line]) -> str:
    def series(name: str, when: str, metric: str) -> Series:
        return Series(name, [(one["day"], one[when][metric]) for one in history if when in one], "dots")

    figures = [
        plot(f"{metric}-days", shown, [
            series(say("earlier model, all rows"), "progressive", metric),
            series(say("earlier, held-out rows"), "before", metric),
            series(say("new, held-out rows"), "after", metric),
        ], Axes(say("day"), shown))
        for metric, shown in (("auc", say("AUC")), ("logloss", say("Logloss")))
    ]  # fmt: skip
    unseen = [
        Series(name, [(one["day"], _mean(one[key])) for one in history if key in one], "dots")
        for name, key in ((say("before growth"), "unseen_before"), (say("held-out rows, after"), "unseen_after"))
    ]
    largest = sorted(history[-1]["table_rows"].items(), key=lambda item: -item[1])[:_TABLE_FIELDS]
    growth = [Series(name, [(one["day"], one["table_rows"].get(name)) for one in history]) for name, _ in largest]
    clicks = [Series(say("clicks"), [(one["day"], one["label_mean"]) for one in history], "dots")]
    figures += [
        plot("unseen-days", say("Unseen values"), unseen, Axes(say("day"), say("share"))),
        plot("rows-days", say("Rows of the largest tables"), growth, Axes(say("day"), say("rows"))),
        plot("clicks-days", say("Label mean"), clicks, Axes(say("day"), say("share of clicks"))),
    ]
    heads = [say("day"), say("state"), say("files"), say("rows"), say("click rate"), say("AUC unseen rows"),
             say("logloss"), say("AUC held out, before"), say("after"), say("table rows"),
             say("columns that moved")]  # fmt: skip
    rows = [
        [str(one["day"]), say.of(one["state"]), ", ".join(file["name"] for file in one["files"]),
         number(sum(one["rows"].values())), number(one["label_mean"]), *_cells(one, "progressive", ("auc", "logloss")),
         *_cells(one, "before", ("auc",)), *_cells(one, "after", ("auc",)), number(sum(one["table_rows"].values())),
         number(len(one["moved"])) if "moved" in one else "-"]
        for one in reversed(history)
    ]  # fmt: skip
    return f'<div class="plots">{"".join(figures)}</div>{table(heads, rows)}'


def _cells(line: Line, when: str, metrics: Sequence[str]) -> list[str]:
    return [number(line[when][name]) if when in line else "-" for name in metrics]


def _about_columns(say: Words, line: Line) -> str:
    if "psi" not in line:
        return say("There is no earlier day to compare with.")
    return say(
        "PSI is the population stability index against the rows of the earlier model's day, by its vocabulary; above "
        "{much} a column has moved much. Label mean {mean}, there {earlier}.",
        much=MUCH, mean=number(line["label_mean"]), earlier=number(line["label_mean_earlier"]),
    )  # fmt: skip


def _columns(say: Words, line: Line) -> str:
    before, after, psi = line.get("unseen_before", {}), line["unseen_after"], line.get("psi", {})
    names = sorted({**psi, **after}, key=lambda name: -psi.get(name, 0.0))
    rows = [
        [name, number(psi.get(name)), say("yes") if name in line.get("moved", ()) else "", number(before.get(name)),
         number(after.get(name)), number(line["table_rows"].get(name))]
        for name in names
    ]  # fmt: skip
    return table(
        [say("column"), say("PSI"), say("moved"), say("unseen before"), say("unseen after"), say("table rows")], rows
    )
