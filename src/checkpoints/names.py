"""Names of files in a checkpoint folder."""

CHECKPOINT, UNFINISHED = "dlrm.ckpt", "unfinished"
REPORT, REPORT_PAGE, SCORES = "report.json", "report.html", "scores.npz"
