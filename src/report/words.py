"""The words of report pages, in English and in Chinese.

What the page says itself goes through `Words`: a sentence by calling it, and names that a report holds, such as of
parts and phases, by `of`. What programs said, such as errors and hints, stays as it was said; so do names of options,
columns and fields.
"""

from typing import Any

from src.model_utils.options import LANGUAGES

ZH = {  # sentences, with places for what comes from a report
    ", step {step} of {steps}": "，第 {step} 步，共 {steps} 步",
    "Training run": "训练报告",
    "report written {time}": "报告生成于 {time}",
    "Scores": "打分结果",
    "{part} rows, evaluated {time}": "{part}数据，评估于 {time}",
    "at step {step}, {part} rows": "第 {step} 步，{part}数据",
    "AUC so far": "当前 AUC",
    "logloss so far": "当前对数损失",
    "{steps} steps": "共 {steps} 步",
    ", {speed} with evaluations and saves": "，计入评估与保存为 {speed}",
    "step {step}": "第 {step} 步",
    "samples a second": "每秒样本数",
    "peak memory": "内存峰值",
    "of this process, before the report": "本进程，生成报告之前",
    "kept network": "保留的模型",
    "skipped updates": "跳过的更新",
    "gradients that overflowed under the loss scale": "损失缩放下梯度溢出",
    "of an earlier network; {others}": "来自先前的模型；{others}",
    "table rows kept": "沿用的嵌入表行",
    "{low} to {high}": "{low} 至 {high}",
    "none, as all rows have one label": "无，因为所有样本标签相同",
    "AUC": "AUC",
    "logloss": "logloss",
    "Logloss": "logloss",
    "normalised entropy": "归一化熵",
    "of the label mean's logloss": "相对于只用标签均值时的 logloss",
    "calibration": "校准（PCOC）",
    "mean score / mean label": "平均预测值 / 平均标签",
    "calibration error": "校准误差",
    "ECE, 15 bins of equal count": "ECE，15 个等频分箱",
    "average precision": "平均精确率（AP）",
    "area of precision-recall": "精确率-召回率曲线下面积",
    "accuracy": "准确率",
    "at a score of 0.5": "阈值 0.5",
    "logloss {loss}, of {rows} training rows": "logloss {loss}，用 {rows} 行训练数据拟合",
    "AUC of a linear model": "线性模型的 AUC",
    "evaluation": "评估",
    "MLPs": "MLP",
    "tables": "嵌入表",
    "step": "步",
    "Training loss": "训练损失",
    "loss": "损失",
    "{metric} on {part} rows": "{part}数据上的 {metric}",
    "Learning rate": "学习率",
    "rate": "学习率",
    "A point of the loss is the mean over all steps since the point before it.": "损失曲线上每一点是自上一点以来所有步"
    "的平均值。",
    "The loss is that of single training batches.": "损失是单个训练 batch 的损失。",
    " AUC and logloss are of all rows of the evaluated part.": "AUC 与 logloss 按所评估部分的全部数据计算。",
    " The run was stopped, and its curves up to step {step} are lost.": " 训练曾被中断，第 {step} 步之前的曲线已丢失。",
    "behind step": "在此步之后",
    "changed": "变更",
    "Training": "训练过程",
    "share of clicks": "点击占比",
    "ROC curve": "ROC 曲线",
    "share of other rows passed": "假正率（FPR）",
    "share of clicks found": "真正率（TPR）",
    "Precision and recall": "精确率与召回率",
    "precision": "精确率",
    "recall: share of clicks found": "召回率",
    "Reliability": "可靠性曲线",
    "bins": "分箱",
    "mean score of a bin": "分箱的平均预测值",
    "Scores by label": "按标签的预测值分布",
    "clicks": "点击",
    "click rate": "点击率",
    "other rows": "未点击",
    "score": "预测值",
    "share of rows": "样本占比",
    "The kept network on {rows} {part} rows, {clicks} of them clicks, mean score {score}. Intervals hold 95 of 100 "
    "resamples of the rows. Dashed: chance, and perfect calibration.": "保留的模型在 {rows} 行{part}数据上的结果，"
    "其中点击占 {clicks}，平均预测值 {score}。区间：对样本重采样（bootstrap），100 次中有 95 次落在其中。"
    "虚线：随机猜测与理想校准。",
    "Unseen: values that the vocabulary does not hold, which share one row of their table.": "未见值：词表中没有的"
    "取值，它们共用嵌入表的一行。",
    "Importance is the AUC that the network loses when a column is shuffled among {rows} rows; both figures are of one "
    "scale.": "重要性是在 {rows} 行数据中打乱该列后 AUC 的下降；两幅图使用同一刻度。",
    " Importance was not measured (importance_rows 0).": " 未测量重要性（importance_rows 0）。",
    " Of the rows, one in {every} was taken for this part.": " 这一部分每 {every} 行取一行。",
    "field": "特征",
    "table rows": "嵌入表行数",
    "unseen": "未见值",
    "AUC unseen": "AUC（未见值）",
    "AUC seen": "AUC（已见值）",
    "logloss unseen": "logloss（未见值）",
    "logloss seen": "logloss（已见值）",
    "importance": "重要性",
    "Metrics by value of each field": "各类别特征按取值的指标",
    "Columns": "各特征",
    "Importance by shuffling, fields: drop in AUC": "置换重要性（类别特征）：AUC 下降",
    "Importance by shuffling, numbers: drop in AUC": "置换重要性（数值特征）：AUC 下降",
    "rows": "行数",
    "mean score": "平均预测值",
    "{place} of {count}": "第 {place} 组，共 {count} 组",
    "most frequent": "最常见的取值",
    "by click rate": "按点击率",
    "part": "部分",
    "lines": "原始行",
    "Data": "数据",
    "Lines are those of the raw files, from 1.": "原始行指原始文件中的行号，从 1 开始。",
    "samples/s": "样本/秒",
    "Throughput": "吞吐量",
    "All options": "全部选项",
    "Machine and options": "机器与选项",
    "Options are those of the whole run, defaults included.": "整个训练的选项，包括默认值。",
    "time of this process": "本进程的时间",
    "seconds": "用时",
    "share": "占比",
    "all": "合计",
    "Runs compared": "训练对比",
    "Metrics": "指标",
    "Metrics of each run's kept network.": "各次训练保留的模型的指标。",
    "Differences to the first run": "与第一次训练的差异",
    "Intervals hold 95 of 100 resamples of the rows, the same rows for both runs, and are given where both scored the "
    "same rows.": "区间：对样本重采样（bootstrap），100 次中有 95 次落在其中，两次训练用同一批样本；"
    "只有两者评估的数据相同时才给出。",
    "run": "训练",
    "95 %": "95 %",
    "{metric} while training": "训练中的 {metric}",
    "Curves": "曲线",
    "Steps of runs with other batch sizes are of other lengths.": "batch 大小不同的训练，每一步的样本数不同。",
    "Options that differ": "不同的选项",
    "All others are the same.": "其余选项相同。",
    "option": "选项",
    "day {day}": "第 {day} 天",
    "Day {day}": "第 {day} 天",
    "The last one is {state}.": "最后一天的模型{state}。",
    "{metric} after": "更新后的 {metric}",
    "{rows} held-out rows": "{rows} 行留出数据",
    "; {before} before": "；更新前 {before}",
    "AUC of the earlier model": "上一版模型的 AUC",
    "all {rows} rows, none seen": "当天全部 {rows} 行，均未训练过",
    "unseen values": "未见值",
    "before the vocabulary grew": "词表增长之前",
    "{got} values got one, {lost} lost it": "{got} 个取值得到行，{lost} 个让出行",
    "{rows} rows": "{rows} 行",
    "earlier model, all rows": "上一版模型，全部数据",
    "earlier, held-out rows": "上一版，留出数据",
    "new, held-out rows": "新模型，留出数据",
    "day": "天",
    "before growth": "词表增长前",
    "held-out rows, after": "增长后，留出数据",
    "Unseen values": "未见值",
    "Rows of the largest tables": "最大的几张嵌入表的行数",
    "Label mean": "标签均值",
    "state": "状态",
    "files": "文件",
    "AUC unseen rows": "AUC（训练前，全部数据）",
    "AUC held out, before": "留出数据 AUC：更新前",
    "after": "更新后",
    "columns that moved": "发生漂移的列",
    "Days": "逐日结果",
    "There is no earlier day to compare with.": "没有更早的一天可供比较。",
    "PSI is the population stability index against the rows of the earlier model's day, by its vocabulary; above "
    "{much} a column has moved much. Label mean {mean}, there {earlier}.": "PSI（群体稳定性指标）相对于上一版"
    "模型当天的数据，按其词表计算；高于 {much} 表示该列漂移明显。标签均值 {mean}，当时为 {earlier}。",
    "yes": "是",
    "column": "列",
    "PSI": "PSI",
    "moved": "漂移",
    "unseen before": "未见值（增长前）",
    "unseen after": "未见值（增长后）",
}
NAMES_ZH = {  # what reports hold
    "finished": "已完成", "unfinished": "未完成", "stopped": "已中断", "failed": "失败",
    "train": "训练", "valid": "验证", "test": "测试",
    "in use": "已启用", "refused": "未采用",
    "new": "新增", "dealt": "重新分配", "free": "空闲",
    "the last one": "最后一步", "best AUC": "AUC 最佳", "best logloss": "logloss 最佳", "best accuracy": "准确率最佳",
    "best normalised entropy": "归一化熵最佳",
    "start": "启动", "first step": "首步（编译计算图）", "reading": "等待数据", "steps": "训练步",
    "evaluations": "评估", "saves": "保存", "going back": "回退", "report": "报告",
    "folder": "数据目录", "bad rows": "坏行", "vocabulary sha256": "词表 SHA-256", "dense": "数值输入",
    "table rows": "嵌入表行数", "weighted by": "权重", "negatives": "负采样", "warnings": "警告",
    "names": "原始文件", "lines": "原始行数",
    "python": "Python", "mindspore": "MindSpore", "numpy": "NumPy", "pandas": "pandas", "system": "系统",
    "processor": "处理器", "cores": "核数", "ranks": "进程数",
    "acc": "准确率", "auc": "AUC", "logloss": "logloss", "normalised_entropy": "归一化熵",
    "calibration": "校准（PCOC）", "ece": "校准误差", "average_precision": "平均精确率（AP）",
    "brier": "Brier 分数", "other rows": "数据不同",
}  # fmt: skip


class Words:
    """What a page says, in a language.

    Args:
        language: of LANGUAGES.
    """

    def __init__(self, language: str):
        assert language in LANGUAGES, language
        self.language = language

    def __call__(self, text: str, **values: Any) -> str:
        """A sentence of the page, an entry of ZH, with values in its places."""
        shown = text if self.language == "en" else ZH[text]
        return shown.format(**values) if values else shown

    def of(self, name: str) -> str:
        """A name that a report holds; one that has no translation, as of a metric of one's own, stays as it is."""
        return name if self.language == "en" else NAMES_ZH.get(name, name)


ENGLISH = Words("en")
