"""The page of one run, made of its report.json; its words are those of words.py."""

import html
from collections.abc import Sequence
from typing import Any

from src.report.plots import Axes, Series, number, plot, ranked_bars
from src.report.style import page, section, table, tile
from src.report.words import Words

_SHARE = (0.0, 1.0)
_BEGIN_ANEW = ("new", "dealt", "free")  # rows of tables of a training that begins with an earlier network


def run_page(content: dict[str, Any], later: Sequence[dict[str, Any]] = (), language: str = "") -> str:
    """The HTML page of a run.

    Args:
        content: of its report, with None for numbers that are not finite.
        later: evaluations of its checkpoint since, from `content.later_content`, the newest last.
        language: of LANGUAGES; unless given, that of the run.
    """
    say, state = Words(language or content.get("language", "en")), content["state"]
    progress = "" if state == "finished" else say(", step {step} of {steps}", step=content["step"],
                                                  steps=content["steps"])  # fmt: skip
    shown, title = html.escape(say.of(state) + progress), say("Training run")
    parts = [f'<h1>{html.escape(title)}<span class="state {html.escape(state)}">{shown}</span></h1>']
    written = say("report written {time}", time=content["written"])
    parts.append(f'<p class="soft">{html.escape(content["run"])} · {html.escape(written)}</p>')
    if content.get("error"):
        parts.append(f'<p class="error">{html.escape(content["error"])}</p>')
    evaluation, learned = content.get("evaluation") or {}, content.get("learned") or {}
    if learned.get("hint"):
        parts.append(f'<p class="error">{html.escape(learned["hint"])}</p>')
    parts += [_tiles(say, content, evaluation), _training(say, content)]
    if evaluation:
        parts += [_scores(say, say("Scores"), evaluation), _columns(say, evaluation)]
    for place, one in enumerate(reversed(later)):
        heading = say("{part} rows, evaluated {time}", part=say.of(one["part"]), time=one["written"])
        tiles = f'<div class="tiles">{"".join(_metrics(say, one))}</div>'
        parts.append(_scores(say, heading, one, tiles, f"later-{place}-"))
    parts += [_data(say, content["data"]), _facts(say, content)]
    return page(f"{title} {content['run']}", "".join(parts), say.language)


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return "-" if value is None else f"{100 * value:.2f} %"


def _tiles(say: Words, content: dict[str, Any], evaluation: dict[str, Any]) -> str:
    training, tiles = content.get("training") or {}, []
    if evaluation:
        tiles = _metrics(say, evaluation)
        tiles[2:2] = _others(say, (content.get("learned") or {}).get("linear"))
    elif evaluations := content["curves"]["evaluations"]:
        last = evaluations[-1]
        at = say("at step {step}, {part} rows", step=number(last["step"]), part=say.of(last["part"]))
        tiles = [
            tile(say("AUC so far"), number(last["auc"]), at, first=True),
            tile(say("logloss so far"), number(last["logloss"]), at, first=True),
        ]
    if training:
        speed, wall = training["samples_per_s"], training.get("wall_samples_per_s")
        steps = say("{steps} steps", steps=number(training["steps"]))
        with_all = say(", {speed} with evaluations and saves", speed=number(round(wall))) if wall else ""
        kept = say("step {step}", step=number(training["kept_step"]))
        tiles += [
            tile(say("samples a second"), number(speed and round(speed)), steps + with_all),
            tile(say("peak memory"), f"{training['peak_memory_mb']:.0f} MB", say("of this process, before the report")),
            tile(say("kept network"), kept, say.of(training["kept_for"])),
        ]
        if skipped := training.get("skipped_updates"):
            tiles.append(
                tile(say("skipped updates"), number(skipped), say("gradients that overflowed under the loss scale"))
            )
        if begun := training.get("begun_with"):
            totals = {what: sum(one[what] for one in begun["tables"].values()) for what in ("kept", *_BEGIN_ANEW)}
            others = ", ".join(f"{number(totals[what])} {say.of(what)}" for what in _BEGIN_ANEW)
            text = say("of an earlier network; {others}", others=others)
            tiles.append(tile(say("table rows kept"), number(totals["kept"]), text))
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _metrics(say: Words, evaluation: dict[str, Any]) -> list[str]:
    """Tiles of an evaluation."""
    metrics, intervals = evaluation["metrics"], evaluation["intervals"]
    spans = {
        name: say("{low} to {high}", low=number(one["low"]), high=number(one["high"]))
        for name, one in intervals.items()
    }
    if metrics["auc"] is None:
        spans["auc"] = say("none, as all rows have one label")
    return [
        tile(say("AUC"), number(metrics["auc"]), spans["auc"], first=True),
        tile(say("logloss"), number(metrics["logloss"]), spans["logloss"], first=True),
        tile(say("normalised entropy"), number(metrics["normalised_entropy"]), say("of the label mean's logloss")),
        tile(say("calibration"), number(metrics["calibration"]), say("mean score / mean label")),
        tile(say("calibration error"), number(metrics["ece"]), say("ECE, 15 bins of equal count")),
        tile(say("average precision"), number(metrics["average_precision"]), say("area of precision-recall")),
        tile(say("accuracy"), number(metrics["acc"]), say("at a score of 0.5")),
    ]


def _others(say: Words, linear: dict[str, Any] | None) -> list[str]:
    """Tiles of the linear model beside the network, if there is one."""
    if not linear:
        return []
    rows = number(linear["train_rows"])
    more = say("logloss {loss}, of {rows} training rows", loss=number(linear["logloss"]), rows=rows)
    return [tile(say("AUC of a linear model"), number(linear["auc"]), more)]


def _training(say: Words, content: dict[str, Any]) -> str:
    curves = content["curves"]
    evaluations, losses, rates = curves["evaluations"], curves["loss"], curves["rate"]
    part = say.of(evaluations[-1]["part"]) if evaluations else say("evaluation")
    rate_series = [Series(say("MLPs"), [(step, rate) for step, rate, _ in rates])]
    if any(rate != table_rate for _, rate, table_rate in rates):
        rate_series.append(Series(say("tables"), [(step, table_rate) for step, _, table_rate in rates]))
    step = say("step")
    figures = [
        plot("loss", say("Training loss"), [Series(say("loss"), [point[:2] for point in losses])],
             Axes(step, say("loss"))),
        *(
            plot(f"{name}-steps", say("{metric} on {part} rows", metric=shown, part=part), [
                Series(shown, [(one["step"], one[name]) for one in evaluations], "dots")], Axes(step, shown))
            for name, shown in (("auc", say("AUC")), ("logloss", say("Logloss")))
        ),
        plot("rate", say("Learning rate"), rate_series, Axes(step, say("rate"))),
    ]  # fmt: skip
    text = say("A point of the loss is the mean over all steps since the point before it.")
    if curves.get("loss_of") != "means":
        text = say("The loss is that of single training batches.")
    text += say(" AUC and logloss are of all rows of the evaluated part.")
    if curves["missing_until"]:
        text += say(" The run was stopped, and its curves up to step {step} are lost.", step=curves["missing_until"])
    rows = [[number(one["step"]), one["what"]] for one in curves.get("changes", [])]
    changes = table([say("behind step"), say("changed")], rows) if rows else ""
    return section(say("Training"), text, f'<div class="plots">{"".join(figures)}</div>{changes}')


def _from_0(values: Sequence[float | None]) -> tuple[float, float] | None:
    known = [value for value in values if value is not None]
    return (0.0, 1.1 * max(known)) if known else None


def _scores(say: Words, heading: str, evaluation: dict[str, Any], above: str = "", names: str = "") -> str:
    """The section of an evaluation; what stands above its plots, and how their names begin."""
    bins, spread = evaluation["reliability"], evaluation["histogram"]
    most = max([*bins["score"], *bins["label"]]) * 1.05 or 1.0
    step = spread["edges"][1] - spread["edges"][0]
    clicks = say("share of clicks")
    figures = [
        plot(f"{names}roc", say("ROC curve"), [Series("ROC", evaluation["roc"])],
             Axes(say("share of other rows passed"), say("share of clicks found"), _SHARE, _SHARE, diagonal=True)),
        plot(f"{names}precision-recall", say("Precision and recall"),
             [Series(say("precision"), evaluation["precision_recall"])],
             Axes(say("recall: share of clicks found"), say("precision"), _SHARE, _SHARE)),
        plot(f"{names}reliability", say("Reliability"),
             [Series(say("bins"), list(zip(bins["score"], bins["label"])), "dots")],
             Axes(say("mean score of a bin"), clicks, (0.0, most), (0.0, most), diagonal=True)),
        plot(f"{names}histogram", say("Scores by label"), [
            Series(say("clicks"), list(zip(spread["edges"], spread["click"])), "bars", step),
            Series(say("other rows"), list(zip(spread["edges"], spread["other"])), "bars", step),
        ], Axes(say("score"), say("share of rows"), _SHARE)),
    ]  # fmt: skip
    text = say(
        "The kept network on {rows} {part} rows, {clicks} of them clicks, mean score {score}. Intervals hold 95 of 100 "
        "resamples of the rows. Dashed: chance, and perfect calibration.",
        rows=number(evaluation["rows"]), part=say.of(evaluation["part"]), clicks=percent(evaluation["label_mean"]),
        score=percent(evaluation["score_mean"]),
    )  # fmt: skip
    return section(heading, text, f'{above}<div class="plots">{"".join(figures)}</div>')


def _columns(say: Words, evaluation: dict[str, Any]) -> str:
    drops = (evaluation.get("importance") or {}).get("auc_drop", {})
    fields = {field["field"]: field for field in evaluation["fields"]}
    figures = ""
    text = say("Unseen: values that the vocabulary does not hold, which share one row of their table.")
    if drops:
        measured = say("Importance is the AUC that the network loses when a column is shuffled among {rows} rows; both "
                       "figures are of one scale.", rows=number(evaluation["importance"]["rows"]))  # fmt: skip
        text = f"{measured} {text}"
        figures = _importance(say, {name: drop or 0.0 for name, drop in drops.items()}, set(fields))
    else:
        text += say(" Importance was not measured (importance_rows 0).")
    if evaluation["sliced_every"] > 1:
        text += say(" Of the rows, one in {every} was taken for this part.", every=evaluation["sliced_every"])
    heads = [say("field"), say("table rows"), say("unseen"), say("AUC unseen"), say("AUC seen"), say("logloss unseen"),
             say("logloss seen"), say("importance")]  # fmt: skip
    rows = [
        [name, number(field["table_rows"]), percent(field["unseen_share"]), number(field["unseen"]["auc"]),
         number(field["seen"]["auc"]), number(field["unseen"]["logloss"]), number(field["seen"]["logloss"]),
         number(drops.get(name))]
        for name, field in fields.items()
    ]  # fmt: skip
    details = "".join(_field_details(say, field) for field in fields.values())
    summary = html.escape(say("Metrics by value of each field"))
    return section(say("Columns"), text, figures + table(heads, rows)
                   + f"<details><summary>{summary}</summary>{details}</details>")  # fmt: skip


def _importance(say: Words, drops: dict[str, float], fields: set[str]) -> str:
    """Bars of fields and of numbers, of which a length means the same in both."""
    ranked = sorted(drops.items(), key=lambda pair: -pair[1])
    span = min(0.0, *drops.values()), max(0.0, *drops.values())
    titles = {
        "fields": say("Importance by shuffling, fields: drop in AUC"),
        "numeric": say("Importance by shuffling, numbers: drop in AUC"),
    }
    chosen = {name: [pair for pair in ranked if (pair[0] in fields) == (name == "fields")] for name in titles}
    longest = max(len(name) for name in drops)
    bars = (
        ranked_bars(f"importance-{name}", titles[name], values, span, longest)
        for name, values in chosen.items()
        if values
    )
    return f'<div class="plots few">{"".join(bars)}</div>'


def _field_details(say: Words, field: dict[str, Any]) -> str:
    heads = [say("rows"), say("click rate"), say("mean score"), say("AUC"), say("logloss")]

    def cells(one: dict[str, Any]) -> list[str]:
        return [number(one["rows"]), percent(one["label_mean"]), percent(one["score_mean"]), number(one["auc"]),
                number(one["logloss"])]  # fmt: skip

    values = [[say("unseen") if one["id"] == 0 else f"id {one['id']}", *cells(one)] for one in field["by_value"]]
    count = len(field["by_label_rate"])
    rates = [[say("{place} of {count}", place=place + 1, count=count), *cells(one)] for place, one in
             enumerate(field["by_label_rate"])]  # fmt: skip
    most, by_rate = say("most frequent"), say("by click rate")
    return (
        f"<details><summary>{html.escape(field['field'])}</summary><div class='columns'>"
        f"{table([most, *heads], values)}{table([by_rate, *heads], rates)}</div></details>"
    )


def _data(say: Words, data: dict[str, Any]) -> str:
    parts = [
        [say.of(name), number(part["rows"]), percent(part["label_mean"]),
         say("{low} to {high}", low=number(part["first_line"]), high=number(part["last_line"]))]
        for name, part in data["parts"].items()
    ]  # fmt: skip
    facts = {key: value for key, value in data.items() if key not in ("parts", "source", "preprocessing", "table_rows")}
    facts["table rows"] = sum(data["table_rows"].values())
    heads = [say("part"), say("rows"), say("click rate"), say("lines")]
    named = {say.of(name.replace("_", " ")): value for name, value in {**facts, **data["source"]}.items()}
    return section(say("Data"), say("Lines are those of the raw files, from 1."),
                   table(heads, parts) + _fact_table(named | data["preprocessing"]))  # fmt: skip


def _facts(say: Words, content: dict[str, Any]) -> str:
    speeds = [(point[0], point[2]) for point in content["curves"]["loss"]]
    shown = say("samples/s")
    figure = plot("throughput", say("Throughput"), [Series(shown, speeds)],
                  Axes(say("step"), shown, y_range=_from_0([speed for _, speed in speeds])))  # fmt: skip
    summary = html.escape(say("All options"))
    options = f"<details><summary>{summary}</summary>{_fact_table(content['options'])}</details>"
    machine = _fact_table({say.of(name): value for name, value in content["machine"].items()})
    cost = _cost(say, (content.get("training") or {}).get("seconds", {}))
    return section(say("Machine and options"), say("Options are those of the whole run, defaults included."),
                   f'<div class="columns">{figure}<div>{cost}{machine}</div></div>{options}')  # fmt: skip


def _cost(say: Words, seconds: dict[str, float]) -> str:
    """What a run's time went into."""
    total = sum(seconds.values())
    if not total:
        return ""
    rows = [[say.of(name), f"{one:.1f} s", f"{100 * one / total:.1f} %"] for name, one in seconds.items()]
    heads = [say("time of this process"), say("seconds"), say("share")]
    return table(heads, [*rows, [say("all"), f"{total:.1f} s", "100 %"]])


def _fact_table(facts: dict[str, Any]) -> str:
    return table([], [[name, _text(value)] for name, value in facts.items()], "facts")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        shown = {name: number(one) if isinstance(one, int | float) else _text(one) for name, one in value.items()}
        return ", ".join(f"{name} {one}" for name, one in shown.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
