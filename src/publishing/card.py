"""The card of a published model: a README.md whose header hubs read, filled from what the training left."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from src.base.logs import figure
from src.data.encoder import Encoder
from src.data.known_values import UNTOLD
from src.data.manifest import VOCABULARY, Manifest, dense_dim_of
from src.data.vocabulary import Vocabulary
from src.network.options import NetworkSpec
from src.publishing.published import CONFIG, TENSORS
from src.publishing.shown import shown_options
from src.report.files import VERSION as REPORT_VERSION

_TASK = {"type": "tabular-classification", "name": "Click-through rate prediction"}
_METRICS = {  # by their names here: as hubs know them, and as people read them
    "auc": ("roc_auc", "AUC"),
    "logloss": ("log_loss", "logloss"),
    "acc": ("accuracy", "accuracy"),
    "normalised_entropy": ("normalised_entropy", "normalised entropy"),
    "calibration": ("calibration", "mean score / mean label"),
    "ece": ("expected_calibration_error", "calibration error (ECE)"),
    "average_precision": ("average_precision", "average precision"),
    "brier": ("brier_score", "Brier score"),
}
_PART_NAMES = {"train": "train", "valid": "validation", "test": "test"}
_DIGITS = 4


@dataclass(frozen=True)
class Facts:
    """What a card tells.

    Attributes:
        manifest: facts of the training data, as they are published.
        network: its shape as it is published.
        mixed_dims: that of the checkpoint, whose vectors were of several widths if it is not 0.
        encoder: as it is published.
        hashed: whether the published vocabulary has keyed hashes.
        report: of the training; empty where there is none.
        evaluations: from eval.py, the newest last.
        name: of the folder.
    """

    manifest: Manifest
    network: NetworkSpec
    mixed_dims: float
    encoder: Encoder
    hashed: bool
    report: Mapping[str, Any]
    evaluations: Sequence[dict[str, Any]]
    name: str

    @property
    def all_evaluations(self) -> list[dict[str, Any]]:
        """Those of eval.py, the newest first, and then the training's own, if its rows are others."""
        later = list(reversed(self.evaluations))
        own = self.report.get("evaluation") or {}
        known = {one["rows_identity"] for one in later}
        return [*later, *([own] if own and own["rows_identity"] not in known else [])]


def card(facts: Facts, parameters: int, folder: Path) -> str:
    """The text of README.md.

    Args:
        facts: what it tells.
        parameters: how many values the MLPs have.
        folder: where the files are that it tells the sizes of.
    """
    head = yaml.safe_dump(_header(facts), sort_keys=False, allow_unicode=True, width=120)
    sections = (
        f"# {facts.name}",
        "A network that predicts clicks from numbers and categories (DLRM, [Naumov et al. 2019]"
        "(https://arxiv.org/abs/1906.00091)), trained by dlrm-mindspore.",
        "Fill in: whose model it is, what it is for, and its licence, which stands in the header as `unknown`.",
        "## Loading it", _loading(facts),
        "## Data", _data(facts),
        "## Evaluation", _evaluation(facts),
        "## Training", _training(facts),
        "## Sizes", _sizes(facts, parameters, folder),
        "## What of the training rows is in these files", "\n".join(f"- {line}" for line in _kept(facts)),
        "## Limits", "\n".join(f"- {line}" for line in _limits(facts)),
    )  # fmt: skip
    return f"---\n{head}---\n\n" + "\n\n".join(sections) + "\n"


def _header(facts: Facts) -> dict[str, Any]:
    results = [_result(one) for one in facts.all_evaluations]
    index = {"model-index": [{"name": facts.name, "results": results}]} if results else {}
    return {
        "license": "unknown",
        "library_name": "mindspore",
        "pipeline_tag": _TASK["type"],
        "tags": ["mindspore", "dlrm", "recommendation", "click-through-rate", "ctr-prediction"],
        "metrics": ["roc_auc", "accuracy"],
        **index,
    }


def _result(one: dict[str, Any]) -> dict[str, Any]:
    """An evaluation as a header has it, with all digits."""
    metrics = []
    for name, (kind, shown) in _METRICS.items():
        if (value := one["metrics"].get(name)) is not None:
            span = one["intervals"].get(name, {})
            known = {key: span[key] for key in ("low", "high") if span.get(key) is not None}
            args = {"args": {"level": 0.95, **known}} if known else {}
            metrics.append({"type": kind, "value": value, "name": shown, **args})
    split = _PART_NAMES[one["part"]]
    return {
        "task": dict(_TASK),
        "dataset": {
            "type": "tabular", "name": _rows_named(one), "split": split, "revision": one["rows_identity"],
            "args": {"rows": one["rows"], "label_mean": one["label_mean"]},
        },
        "metrics": metrics,
    }  # fmt: skip


def _rows_named(one: Mapping[str, Any]) -> str:
    """Which rows an evaluation is of, in words."""
    source = one.get("source")
    if not source:
        return f"{_PART_NAMES[one['part']]} rows of the training data"
    first, last = source["lines"]
    names = ", ".join(source["names"]) or "the raw files"
    how = f", split {source['split']}" if source["split"] else ""
    return f"lines {first} to {last} of {names}{how}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _loading(facts: Facts) -> str:
    key = f"\n# beside the folder must stand {facts.name}.key, or give key_path=..." if facts.hashed else ""
    return (
        "From the folder of the program, with this folder in it:\n\n"
        "```python\n"
        "from pathlib import Path\n"
        "import mindspore as ms\n"
        "from mindspore_hub_conf import create_network\n"
        "from src.scorer import Scorer\n"
        f'scorer = Scorer("{facts.name}"){key}\n'
        'print(scorer.score_lines(Path("new_rows.txt")))  # of raw rows without a label\n'
        'ms.set_device("CPU")\n'
        f'network = create_network("dlrm", checkpoint_path="{facts.name}")  # logits of coded rows\n'
        "```\n\n"
        f"`{TENSORS}` holds the values by name, as `safetensors.numpy.load_file` reads them, `{CONFIG}` the shape."
    )


def _data(facts: Facts) -> str:
    manifest = facts.manifest
    rows = [
        [_PART_NAMES.get(name, name), f"{part.rows:,}", f"{100 * part.label_mean:.2f} %",
         f"{part.first_line:,} to {part.last_line:,}",
         f"{100 * sum(part.unseen_share) / max(len(part.unseen_share), 1):.2f} %"]
        for name, part in manifest.parts.items()
    ]  # fmt: skip
    columns = (
        f"{len(manifest.dense)} numeric columns ({_some(manifest.dense)}) and {len(manifest.categorical)} categorical "
        f"ones ({_some(manifest.categorical)}). "
    )
    split = manifest.options.get("split") or "by place: the last rows are later ones"
    weights = f" Rows are weighted by column `{manifest.weight}`." if manifest.weight else ""
    told = f"{columns}Split: {split}. Vocabulary: SHA-256 `{manifest.sha256(VOCABULARY)}`.{weights}"
    if negatives := manifest.negatives:
        told += f" Of {negatives.rows:,} training rows without a click {negatives.kept:,} were kept, which the table "
        told += f"has; of all, {100 * manifest.label_mean_of_all('train'):.2f} % are clicks."
    return f"{told}\n\n" + _table(["part", "rows", "clicks", "lines", "values unseen in training"], rows)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]}, {names[1]} .. {names[-1]}"


def _evaluation(facts: Facts) -> str:
    found = facts.all_evaluations
    if not found:
        return "Not evaluated."
    rows = []
    for one in found:
        spans = one["intervals"]
        cells = [f"{one['rows']:,} {_PART_NAMES[one['part']]} rows: {_rows_named(one)}"]
        for name in _METRICS:
            low, high = (figure(spans.get(name, {}).get(end), _DIGITS) for end in ("low", "high"))
            value = figure(one["metrics"].get(name), _DIGITS)
            cells.append(f"{value} ({low} to {high})" if name in spans else value)
        rows.append(cells)
    text = (
        "In brackets between which values 95 of 100 resamples of the rows lie. A mean score / mean label of 1, and a "
        "calibration error of 0, is a network whose scores are probabilities."
    )
    chosen = (facts.report.get("training") or {}).get("kept_for", "").startswith("best")
    if chosen and any(one["part"] == "valid" for one in found):
        text += " The validation rows chose which network was kept, which flatters it a little."
    if facts.manifest.negatives and any(one["part"] == "train" for one in found):
        text += " Of training rows without a click only some are there, so that scores lie below their mean label."
    return f"{text}\n\n" + _table(["rows", *(shown for _, shown in _METRICS.values())], rows)


def _training(facts: Facts) -> str:
    training, options = facts.report.get("training") or {}, shown_options(dict(facts.report.get("options", {})))
    if not training or facts.report.get("version") != REPORT_VERSION:
        return "No report of the training is there."
    machine = facts.report["machine"]
    told = (
        f"{training['steps']:,} steps, kept: that of step {training['kept_step']:,} ({training['kept_for']}). On "
        f"{machine['processor']}, {machine['cores']} cores, MindSpore {machine['mindspore']}. `report.html` has the "
        f"curves."
    )
    return f"{told}\n\n" + _table(["option", "value"], [[name, str(value)] for name, value in options.items()])


def _sizes(facts: Facts, parameters: int, folder: Path) -> str:
    manifest, width = facts.manifest, facts.network.emb_dim
    rows = sum(manifest.rows_of_tables)
    shape = ", ".join(f"{name} {value}" for name, value in asdict(facts.network).items())
    lines = [
        f"MLPs: {parameters:,} values; tables: {len(manifest.rows_of_tables)} with {rows:,} rows of {width} values, "
        f"{rows * width:,} in all; float32",
        f"inputs: {dense_dim_of(manifest)} numbers and {manifest.layout.ids} ids a row",
        f"`{TENSORS}` {_size(folder / TENSORS)}, `{VOCABULARY}` {_size(folder / VOCABULARY)}",
        f"shape: {shape}",
    ]
    if facts.mixed_dims:
        lines.append(f"vectors of mixed widths (mixed_dims {facts.mixed_dims:g}) are published at full width")
    return "\n".join(f"- {line}" for line in lines)


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:,.1f} MB"


def _kept(facts: Facts) -> Iterator[str]:
    """What of the training rows the encoder needs, and so the files hold."""
    encoder, vocabulary = facts.encoder, facts.encoder.vocabulary
    yield "the names of the columns"
    if not isinstance(vocabulary, Vocabulary):
        yield "no list of categories: ids are hashes of them"
    elif facts.hashed:
        yield (
            f"of {_count(vocabulary):,} category values keyed hashes of 64 bits (SipHash-1-3). The key is not in these "
            "files; without it no value can be read, and no guess be checked. Who has the key, as everybody has who "
            "scores raw rows, can check guesses"
        )
    else:
        yield (
            f"{_count(vocabulary):,} category values: those of up to 8 bytes as they stood in the rows, longer ones as "
            "hashes of 64 bits, of which guesses can be checked, since what they are made with is there too"
        )
    if isinstance(vocabulary, Vocabulary):
        yield "of each categorical column, how many values it has, and which of them are more frequent than others"
    examples = [{*one.known, one.not_whole, one.like_missing} - {""} for one in encoder.examples]
    if told := sum(len(one - {UNTOLD}) for one in examples):
        yield f"{told} category values as text, cut after 60 characters, which tell rows that were read wrongly"
    if any(UNTOLD in one for one in examples):
        yield "of each categorical column, whether it has text that is no whole number, or is a word such as NULL"
    for name, arrays in _learned(encoder):
        yield f"{sum(one.size for one in arrays):,} numbers learned of the columns ({name})"
    yield "of each part how many rows it has, its share of clicks, and of unseen values"
    yield "what the network has learned: whoever has it can ask how likely a click on any row is"


def _count(vocabulary: Vocabulary) -> int:
    return sum(len(keys) for keys in vocabulary.keys)


def _learned(encoder: Encoder) -> Iterator[tuple[str, list[Any]]]:
    """Of which kind the numbers are that the encoder has learned, and these."""
    found: dict[str, list[Any]] = {}
    for name, array in encoder.learned.arrays().items():
        if array.dtype.kind in "fiu":
            found.setdefault(re.sub(r"^/inputs/|/\d+$", "", name).replace("_", " "), []).append(array)
    yield from found.items()


def _limits(facts: Facts) -> Iterator[str]:
    worst = max((max(part.unseen_share, default=0.0) for name, part in facts.manifest.parts.items() if name != "train"),
                default=0.0)  # fmt: skip
    yield (
        "values that training did not have share one vector a column; where such are many "
        f"(up to {100 * worst:.1f} % of a column in the rows above), scores tell less"
    )
    yield "the figures above are of rows like the training's; clicks drift, so evaluate it on rows of your own time"
    yield "rows must be written as in training: `Scorer` warns of columns that do not match"
    yield "it was not looked at whether it is fair to groups of people, nor what is in the rows that it learned from"
