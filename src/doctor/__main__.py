"""Why is my AUC bad? `python -m src.doctor --checkpoint=checkpoint --dataset_path=dataset`.

Raw rows instead: `--data_path=FILE [--schema=SCHEMA.yaml]`. Compares the rows with what the model was trained on, names
the first mistake with what mends it, then others. The exit code is 0 if nothing was found, 1 if something was, 2 for a
command that can't be followed.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

if __name__ == "__main__":
    from src.base.stops import end_at_once

    end_at_once()

from src.base.errors import run
from src.data.manifest import find
from src.doctor.diagnosis import diagnose
from src.doctor.evidence import of_folder, of_raw
from src.doctor.trained import Trained
from src.options import DoctorOptions, resolve
from src.rows.raw_files import find_raws
from src.rows.schema import load_schema


def main(argv: Sequence[str]) -> int:
    """Look for mistakes; 0 if there is none, else 1."""
    options = resolve(DoctorOptions, argv)
    spec = options.doctor
    trained = Trained(spec.checkpoint_path, options.network, spec.trained_path)
    if spec.data_path:
        columns = load_schema(Path(spec.schema)) if spec.schema else trained.manifest.columns()
        evidence = of_raw(trained, find_raws(spec.data_path), columns, spec.data_path, spec.schema)
    else:
        evidence = of_folder(trained, find(spec.dataset_path), spec.dataset_path)
    diagnosis = diagnose(evidence)
    print("\n".join(diagnosis.lines()))
    return 1 if diagnosis.found else 0


if __name__ == "__main__":
    run(main)
