"""The page of a run: its words in both languages, later evaluations, what the run cost, bars of one scale."""

import ast
import io
import re
import shutil
import sys
import time

import numpy as np
import pytest
from conftest import CPU, ROOT
from runs import rows_of, train_small

import eval as eval_program
from src.base import logs
from src.base.errors import InputError
from src.report import __main__ as report
from src.report.compare import ComparedRun, _aligned, comparison_lines, comparison_page
from src.report.files import load_report
from src.report.page import run_page
from src.report.plots import number, ranked_bars, shortened
from src.report.words import ENGLISH, NAMES_ZH, ZH, Words
from src.training.options import KeptSpec

SENTENCES = [
    str(ast.literal_eval(call.args[0]))
    for path in [*sorted((ROOT / "src/report").glob("*.py")), ROOT / "src/days/page.py"]
    for call in ast.walk(ast.parse(path.read_text()))
    if isinstance(call, ast.Call) and ast.unparse(call.func) == "say"
]


def text_of(page):
    """What a page shows, a piece a line, without its style."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    return [piece.strip() for piece in re.split(r"<[^>]*>", body) if piece.strip()]


def test_every_sentence_has_a_translation_and_every_translation_a_use():
    assert set(SENTENCES) == set(ZH)
    for english, chinese in ZH.items():
        places = [sorted(re.findall(r"{\w+}", text)) for text in (english, chinese)]
        assert places[0] == places[1], english
        assert english[:1] != " " or chinese


@pytest.fixture(scope="module")
def evaluated(run_folder, tiny_data, made_once):
    """A run's folder whose checkpoint eval.py has evaluated."""

    def make(folder):
        shutil.copytree(run_folder / "checkpoint", folder / "checkpoint")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            eval_program.main([f"--dataset_path={tiny_data.path}", CPU])

    return made_once("evaluated", make)


def test_pages_are_of_one_language(evaluated):
    """All but names of columns and options, numbers, and what programs said; with all that a page may say."""
    content = load_report(evaluated / "checkpoint")
    content["curves"] |= {"missing_until": 5, "changes": [{"step": 5, "what": "lr 0.1"}]}
    content["training"] |= {"skipped_updates": 3, "begun_with": {"tables": {"C1": dict.fromkeys(
        ("kept", "new", "dealt", "free"), 1)}}}  # fmt: skip
    content["evaluation"]["sliced_every"] = 2
    own = {"auc", "C1", "I1", "MLP", "MB", "ROC", "AUC", "ECE", "SHA", "id", "s", "lr", *content["options"],
           *content["data"]["preprocessing"]}  # fmt: skip
    page = run_page(content, [], "zh")
    words = {piece for piece in text_of(page) if piece in {one.strip() for one in ZH} - set(ZH.values())}
    assert words <= {"all"}, "the page says so in English"  # a value of the option average_share may be all
    assert 'lang="zh"' in page
    names = [piece for piece in text_of(page) if piece in set(NAMES_ZH) - set(NAMES_ZH.values()) - own]
    assert set(names) <= {"test", "train", "free"}, names
    assert not re.search(r"[\u4e00-\u9fff]", run_page(content, [], "en"))
    held = {content["state"], *content["data"]["parts"], content["training"]["kept_for"], *content["machine"],
            *content["training"]["seconds"]}  # fmt: skip
    assert held <= set(NAMES_ZH)
    unfinished = content | {"state": "unfinished", "evaluation": None, "training": None, "step": 3}
    assert "第 3 步，共 212 步" in run_page(unfinished, [], "zh")


def test_an_evaluation_is_taken_up(evaluated, capsys):
    """By eval.py; and a page that is made anew has it, in the language that is asked for."""
    page = evaluated / "checkpoint/report.html"
    (row,) = rows_of(evaluated / "metrics.jsonl", "eval")
    shown = text_of(page.read_text())
    place = next(index for index, piece in enumerate(shown) if piece.startswith("test rows, evaluated"))
    assert f"{row['auc']:.4f}" in shown[place:]
    assert f"{row['auc_low']:.4f} to {row['auc_high']:.4f}" in shown[place:]
    assert 'data-plot="later-0-roc"' in page.read_text()
    first = page.read_bytes()
    assert report.main([str(evaluated / "checkpoint"), "--language=zh"]) == 0
    assert capsys.readouterr().out == f"report: {page}\n"
    assert any(piece.startswith("测试数据，评估于") for piece in text_of(page.read_text()))
    report.main([str(page)])
    assert page.read_bytes() == first


def test_an_evaluation_goes_on_where_nothing_can_be_left(evaluated, tiny_data, tmp_path, monkeypatch, capfd):
    shutil.copytree(evaluated / "checkpoint", tmp_path / "checkpoint")
    (tmp_path / "checkpoint/evaluations.json").unlink()
    (tmp_path / "checkpoint/evaluations.json").mkdir()  # as good as a folder that can't be written, also to root
    monkeypatch.chdir(tmp_path)
    eval_program.main([f"--dataset_path={tiny_data.path}", CPU])
    out, err = capfd.readouterr()
    assert "test: 142 rows" in out
    assert "evaluations.json: Is a directory: the report will not show this evaluation" in err


def test_a_run_tells_what_its_time_went_into(tiny_data, tmp_path):
    begin = time.perf_counter()
    train_small(tiny_data, tmp_path, report=True, log_steps=5, eval_steps=10)
    whole = time.perf_counter() - begin
    content = load_report(tmp_path)
    seconds = content["training"]["seconds"]
    assert list(seconds) == ["start", "first step", "reading", "steps", "evaluations", "saves", "report"]
    assert all(value >= 0 for value in seconds.values())
    assert 0 < sum(seconds.values()) <= whole
    assert content["curves"]["loss_of"] == "means"
    means = [row["mean_loss"] for row in rows_of(tmp_path / "metrics.jsonl", "loss")]
    assert [point[1] for point in content["curves"]["loss"]] == means
    assert f"{sum(seconds.values()):.1f} s" in text_of((tmp_path / "report.html").read_text())


def test_bars_have_whole_labels_and_one_scale():
    """Of two figures with one span a bar of the same value is of the same width, whatever else they show."""
    span, names = (-0.1, 0.4), ["I13 missing", "C1"]

    def bars(values):
        drawn = ranked_bars("x", "X", values, span, max(map(len, names)))
        ends = [float(x) for x in re.findall(r'text-anchor="end"', drawn) and re.findall(r'<text x="([\d.]+)"', drawn)]
        return drawn, dict(zip(re.findall(r"<title>(.*?)</title>", drawn),
                               map(float, re.findall(r'width="([\d.]+)"', drawn)))), ends  # fmt: skip

    first, widths, ends = bars([("I13 missing", 0.2), ("C1", 0.1)])
    assert ">I13 missing</text>" in first
    assert ends[0] > 6 * len("I13 missing"), "the label, which ends there, begins within the figure"
    assert bars([("C1", 0.1)])[1]["C1"] == widths["C1"] == pytest.approx(widths["I13 missing"] / 2, abs=0.1)
    assert shortened("a name of many letters", 11) == "a nam…tters"
    assert shortened("a name", 6) == "a name"
    assert [number(value) for value in (0, 0.0, 7, 1234)] == ["0", "0.0000", "7", "1\u202f234"]


def test_a_comparison_fits_a_screen(evaluated, tmp_path):
    name = tmp_path / ("folder-" * 20)
    shutil.copytree(evaluated / "checkpoint", name)
    runs = [ComparedRun.load(str(folder)) for folder in [evaluated / "checkpoint", *[name] * 6]]
    for some in (runs[:2], runs[:3], runs):
        lines = comparison_lines(some)
        assert max(map(len, lines)) <= 80
        assert sum(line.split()[:1] == ["logloss"] for line in lines) == -(-len(some) // 5)
    assert 'lang="zh"' in comparison_page(runs[:2], "zh")
    assert "与第一次训练的差异" in comparison_page(runs[:2], "zh")


def test_columns_of_a_terminal_are_as_wide_as_chinese_names():
    aligned = _aligned([["", "模型/混合", "b"], ["auc", "0.75", "0.5"]], 9)
    assert aligned == ["     模型/混合    b", "auc       0.75  0.5"]
    assert _aligned([["", "我的模型/混合"], ["auc", "0.75"]], 9)[0].split() == ["我的…混合"]


def test_a_language_without_a_report_is_refused():
    with pytest.raises(InputError, match="language zh has no effect without report"):
        KeptSpec(report=False, language="zh")
    assert Words("zh").of("a metric of one's own") == "a metric of one's own"
    assert ENGLISH("{low} to {high}", low=1, high=2) == "1 to 2"


def test_long_work_is_told(monkeypatch):
    said = io.StringIO()  # what is read stays there: capsys would drop what comes just then
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(logs, "FIRST_WORD_S", 0.01)
    with logs.phase("counting sheep"):
        while "\n" not in said.getvalue():
            time.sleep(0.01)
    line = said.getvalue()
    assert re.fullmatch(r"counting sheep, for \d+ s so far\n", line)
    monkeypatch.setattr(logs, "FIRST_WORD_S", 60.0)
    with logs.phase("counting one sheep"):
        np.zeros(1)
    assert said.getvalue() == line
