"""The page of one run, made of its report.json."""

import html
from collections.abc import Sequence
from typing import Any

from src.report.plots import Axes, Series, number, plot, ranked_bars
from src.report.style import page, section, table, tile

_SHARE = (0.0, 1.0)
_BEGIN_ANEW = ("new", "dealt", "free")  # rows of tables of a training that begins with an earlier network


def run_page(content: dict[str, Any], later: Sequence[dict[str, Any]] = ()) -> str:
    """The HTML page of a run.

    Args:
        content: of its report, with None for numbers that are not finite.
        later: evaluations of its checkpoint since, from `content.later_content`, the newest last.
    """
    state = content["state"]
    progress = "" if state == "finished" else f", step {content['step']} of {content['steps']}"
    shown = html.escape(state + progress)
    parts = [f'<h1>Training run<span class="state {html.escape(state)}">{shown}</span></h1>']
    parts.append(
        f'<p class="soft">{html.escape(content["run"])} · report written {html.escape(content["written"])}</p>'
    )
    if content.get("error"):
        parts.append(f'<p class="error">{html.escape(content["error"])}</p>')
    evaluation, learned = content.get("evaluation") or {}, content.get("learned") or {}
    if learned.get("hint"):
        parts.append(f'<p class="error">{html.escape(learned["hint"])}</p>')
    parts.append(_tiles(content, evaluation))
    parts.append(_training(content))
    if evaluation:
        parts += [_scores("Scores", evaluation), _columns(evaluation)]
    for number_, one in enumerate(reversed(later)):
        heading = f"{one['part'].capitalize()} rows, evaluated {one['written']}"
        tiles = f'<div class="tiles">{"".join(_metrics(one))}</div>'
        parts.append(_scores(heading, one, tiles, f"later-{number_}-"))
    parts += [_data(content["data"]), _facts(content)]
    return page(f"Training run {content['run']}", "".join(parts))


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return "-" if value is None else f"{100 * value:.2f} %"


def _tiles(content: dict[str, Any], evaluation: dict[str, Any]) -> str:
    training, tiles = content.get("training") or {}, []
    if evaluation:
        tiles = _metrics(evaluation)
        tiles[2:2] = _others((content.get("learned") or {}).get("linear"))
    elif evaluations := content["curves"]["evaluations"]:
        last = evaluations[-1]
        tiles = [
            tile("AUC so far", number(last["auc"]), f"at step {last['step']}, {last['part']} rows", first=True),
            tile("logloss so far", number(last["logloss"]), f"at step {last['step']}", first=True),
        ]
    if training:
        speed, wall = training["samples_per_s"], training.get("wall_samples_per_s")
        with_all = f", {number(round(wall))} with evaluations and saves" if wall else ""
        tiles += [
            tile(
                "samples a second",
                number(speed and round(speed)),
                f"{number(training['steps'])} steps{with_all}",
            ),
            tile("peak memory", f"{training['peak_memory_mb']:.0f} MB", "of this process, before the report"),
            tile("kept network", f"step {number(training['kept_step'])}", training["kept_for"]),
        ]
        if skipped := training.get("skipped_updates"):
            tiles.append(tile("skipped updates", number(skipped), "gradients that overflowed under the loss scale"))
        if begun := training.get("begun_with"):
            totals = {what: sum(one[what] for one in begun["tables"].values()) for what in ("kept", *_BEGIN_ANEW)}
            others = ", ".join(f"{number(totals[what])} {what}" for what in _BEGIN_ANEW)
            tiles.append(tile("table rows kept", number(totals["kept"]), f"of an earlier network; {others}"))
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _metrics(evaluation: dict[str, Any]) -> list[str]:
    """Tiles of an evaluation."""
    metrics, intervals = evaluation["metrics"], evaluation["intervals"]
    spans = {name: f"{number(one['low'])} to {number(one['high'])}" for name, one in intervals.items()}
    if metrics["auc"] is None:
        spans["auc"] = "none, as all rows have one label"
    return [
        tile("AUC", number(metrics["auc"]), spans["auc"], first=True),
        tile("logloss", number(metrics["logloss"]), spans["logloss"], first=True),
        tile("normalised entropy", number(metrics["normalised_entropy"]), "of the label mean's logloss"),
        tile("calibration", number(metrics["calibration"]), "mean score / mean label"),
        tile("calibration error", number(metrics["ece"]), "ECE, 15 bins of equal count"),
        tile("average precision", number(metrics["average_precision"]), "area of precision-recall"),
        tile("accuracy", number(metrics["acc"]), "at a score of 0.5"),
    ]


def _others(linear: dict[str, Any] | None) -> list[str]:
    """Tiles of the linear model beside the network, if there is one."""
    if not linear:
        return []
    more = f"logloss {number(linear['logloss'])}, of {number(linear['train_rows'])} training rows"
    return [tile("AUC of a linear model", number(linear["auc"]), more)]


def _training(content: dict[str, Any]) -> str:
    curves = content["curves"]
    evaluations, losses, rates = curves["evaluations"], curves["loss"], curves["rate"]
    part = {"valid": "validation"}.get(evaluations[-1]["part"], "test") if evaluations else "evaluation"
    rate_series = [Series("MLPs", [(step, rate) for step, rate, _ in rates])]
    if any(rate != table_rate for _, rate, table_rate in rates):
        rate_series.append(Series("tables", [(step, table_rate) for step, _, table_rate in rates]))
    figures = [
        plot("loss", "Training loss", [Series("loss", [point[:2] for point in losses])], Axes("step", "loss")),
        *(
            plot(f"{name}-steps", f"{shown} on {part} rows", [
                Series(name, [(one["step"], one[name]) for one in evaluations], "dots")], Axes("step", shown))
            for name, shown in (("auc", "AUC"), ("logloss", "Logloss"))
        ),
        plot("rate", "Learning rate", rate_series, Axes("step", "rate")),
    ]  # fmt: skip
    text = "The loss is that of single training batches; AUC and logloss are of all rows of the evaluated part."
    if curves["missing_until"]:
        text += f" The run was stopped, and its curves up to step {curves['missing_until']} are lost."
    rows = [[number(one["step"]), one["what"]] for one in curves.get("changes", [])]
    changes = table(["behind step", "changed"], rows) if rows else ""
    return section("Training", text, f'<div class="plots">{"".join(figures)}</div>{changes}')


def _from_0(values: Sequence[float | None]) -> tuple[float, float] | None:
    known = [value for value in values if value is not None]
    return (0.0, 1.1 * max(known)) if known else None


def _scores(heading: str, evaluation: dict[str, Any], above: str = "", names: str = "") -> str:
    """The section of an evaluation; what stands above its plots, and how their names begin."""
    bins, spread = evaluation["reliability"], evaluation["histogram"]
    most = max([*bins["score"], *bins["label"]]) * 1.05 or 1.0
    step = spread["edges"][1] - spread["edges"][0]
    figures = [
        plot(f"{names}roc", "ROC curve", [Series("ROC", evaluation["roc"])],
             Axes("share of other rows passed", "share of clicks found", _SHARE, _SHARE, diagonal=True)),
        plot(f"{names}precision-recall", "Precision and recall", [Series("precision", evaluation["precision_recall"])],
             Axes("recall: share of clicks found", "precision", _SHARE, _SHARE)),
        plot(f"{names}reliability", "Reliability", [Series("bins", list(zip(bins["score"], bins["label"])), "dots")],
             Axes("mean score of a bin", "share of clicks", (0.0, most), (0.0, most), diagonal=True)),
        plot(f"{names}histogram", "Scores by label", [
            Series("clicks", list(zip(spread["edges"], spread["click"])), "bars", step),
            Series("other rows", list(zip(spread["edges"], spread["other"])), "bars", step),
        ], Axes("score", "share of rows", _SHARE)),
    ]  # fmt: skip
    text = (
        f"The kept network on {number(evaluation['rows'])} {evaluation['part']} rows, "
        f"{percent(evaluation['label_mean'])} of them clicks, mean score {percent(evaluation['score_mean'])}. "
        f"Intervals hold 95 of 100 resamples of the rows. Dashed: chance, and perfect calibration."
    )
    return section(heading, text, f'{above}<div class="plots">{"".join(figures)}</div>')


def _columns(evaluation: dict[str, Any]) -> str:
    drops = (evaluation.get("importance") or {}).get("auc_drop", {})
    fields = {field["field"]: field for field in evaluation["fields"]}
    figures = ""
    text = "Unseen: values that the vocabulary does not hold, which share one row of their table."
    if drops:
        text = (
            f"Importance is the AUC that the network loses when a column is shuffled among "
            f"{number(evaluation['importance']['rows'])} rows. {text}"
        )
        ranked = sorted(((name, drop or 0.0) for name, drop in drops.items()), key=lambda pair: -pair[1])
        both = (("fields", True), ("numeric", False))
        figures = "".join(
            ranked_bars(f"importance-{name}", f"Importance by shuffling, {name}: drop in AUC",
                        [pair for pair in ranked if (pair[0] in fields) == wanted])
            for name, wanted in both if any((column in fields) == wanted for column in drops)
        )  # fmt: skip
        figures = f'<div class="plots few">{figures}</div>'
    else:
        text += " Importance was not measured (importance_rows 0)."
    if evaluation["sliced_every"] > 1:
        text += f" Of the rows, one in {evaluation['sliced_every']} was taken for this part."
    heads = ["field", "table rows", "unseen", "AUC unseen", "AUC seen", "logloss unseen", "logloss seen", "importance"]
    rows = [
        [name, number(field["table_rows"]), percent(field["unseen_share"]), number(field["unseen"]["auc"]),
         number(field["seen"]["auc"]), number(field["unseen"]["logloss"]), number(field["seen"]["logloss"]),
         number(drops.get(name))]
        for name, field in fields.items()
    ]  # fmt: skip
    tables = table(heads, rows)
    details = "".join(_field_details(field) for field in fields.values())
    return section("Columns", text, figures + tables
                   + f"<details><summary>Metrics by value of each field</summary>{details}</details>")  # fmt: skip


def _field_details(field: dict[str, Any]) -> str:
    heads = ["rows", "clicks", "mean score", "AUC", "logloss"]

    def cells(one: dict[str, Any]) -> list[str]:
        return [number(one["rows"]), percent(one["label_mean"]), percent(one["score_mean"]), number(one["auc"]),
                number(one["logloss"])]  # fmt: skip

    values = [["unseen" if one["id"] == 0 else f"id {one['id']}", *cells(one)] for one in field["by_value"]]
    rates = [[f"{place + 1} of {len(field['by_label_rate'])}", *cells(one)] for place, one in
             enumerate(field["by_label_rate"])]  # fmt: skip
    return (
        f"<details><summary>{html.escape(field['field'])}</summary><div class='columns'>"
        f"{table(['most frequent', *heads], values)}{table(['by click rate', *heads], rates)}</div></details>"
    )


def _data(data: dict[str, Any]) -> str:
    parts = [
        [name, number(part["rows"]), percent(part["label_mean"]),
         f"{number(part['first_line'])} to {number(part['last_line'])}"]
        for name, part in data["parts"].items()
    ]  # fmt: skip
    facts = {key: value for key, value in data.items() if key not in ("parts", "source", "preprocessing", "table_rows")}
    facts["table rows"] = sum(data["table_rows"].values())
    return section("Data", "Lines are those of the raw files, from 1.",
                   table(["part", "rows", "clicks", "lines"], parts)
                   + _fact_table({**facts, **data["source"], **data["preprocessing"]}))  # fmt: skip


def _facts(content: dict[str, Any]) -> str:
    speeds = [(point[0], point[2]) for point in content["curves"]["loss"]]
    figure = plot("throughput", "Throughput", [Series("samples/s", speeds)],
                  Axes("step", "samples/s", y_range=_from_0([speed for _, speed in speeds])))  # fmt: skip
    options = f"<details><summary>All options</summary>{_fact_table(content['options'])}</details>"
    return section("Machine and options", "Options are those of the whole run, defaults included.",
                   f'<div class="columns">{figure}{_fact_table(content["machine"])}</div>{options}')  # fmt: skip


def _fact_table(facts: dict[str, Any]) -> str:
    return table([], [[name.replace("_", " "), _text(value)] for name, value in facts.items()], "facts")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        shown = {name: number(one) if isinstance(one, int | float) else _text(one) for name, one in value.items()}
        return ", ".join(f"{name} {one}" for name, one in shown.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
