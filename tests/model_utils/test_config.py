"""Options: default < saved < YAML < flag, and every way to get one wrong."""

import re
from pathlib import Path

import pytest
import yaml

from src.base.errors import InputError
from src.model_utils import config
from src.model_utils.config import NETWORK, OPTIONS, PROGRAMS, options_of, resolve

ROOT = Path(__file__).parents[2]
SHOWN = [path.relative_to(ROOT).as_posix() for name in ("README.md", "docs/*.md", "scripts/*.sh")
         for path in sorted(ROOT.glob(name))]  # fmt: skip


def yaml_file(folder, text, name="options.yaml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_flag_over_yaml_over_default(tmp_path):
    path = yaml_file(tmp_path, "lr: 0.5\nbatch_size: 64\n")
    options = resolve("train", [f"--config_path={path}", "--batch_size=32"])
    assert (options.lr, options.batch_size, options.seed) == (0.5, 32, 1)


def test_device_chooses_the_yaml():
    chosen = {device: resolve("train", [f"--device_target={device}"]) for device in ("Ascend", "GPU", "CPU")}
    assert resolve("train", []) == chosen["Ascend"]
    assert {device: options.device_target for device, options in chosen.items()} == {d: d for d in chosen}
    assert [options.batch_size for options in chosen.values()] == [128, 1280, 128]


@pytest.mark.parametrize("name", ["npu_config.yaml", "gpu_config.yaml", "cpu_config.yaml", "best_config.yaml"])
def test_shipped_yaml_holds_only_what_differs(name):
    resolve("train", [f"--config_path={ROOT / name}"])
    for key, value in yaml.safe_load((ROOT / name).read_text()).items():
        assert key == "device_target" or OPTIONS[key].default != value


def test_defaults_of_the_public_original():
    options = resolve("train", [])
    assert (options.device_target, options.eval_file_name, options.loss_file_name) == (
        "Ascend",
        "./auc.log",
        "./loss.log",
    )
    assert (options.do_eval, options.lr, options.epochs, options.eval_batch_size) == (True, 0.15, 1, 16384)
    assert (options.emb_dim, options.bottom_mlp, options.top_mlp) == (16, (512, 256, 64, 16), (512, 256, 1))
    assert resolve("eval", []).eval_file_name == "./acc.log"


def test_lists_booleans_and_exponents(tmp_path):
    options = resolve("train", ["--top_mlp=[32,1]", "--do_eval=false", "--lr=1e-3", "--shuffle", "--overwrite=True"])
    assert (options.top_mlp, options.do_eval, options.lr, options.shuffle) == ((32, 1), False, 0.001, True)
    path = yaml_file(tmp_path, "lr: 1e-3\nbottom_mlp: [8, 16]\ndo_eval: no\n")
    options = resolve("train", [f"--config_path={path}"])
    assert (options.lr, options.bottom_mlp, options.do_eval) == (0.001, (8, 16), False)


WRONG_FLAGS = [
    (["--lr=nan"], "--lr is nan: it must be a finite number above 0"),
    (["--lr=fast"], "--lr is 'fast': it must be a number"),
    (["--lr="], "--lr is '': it must be a number"),
    (["--batch_size=0"], "--batch_size is 0: it must be a finite number above 0"),
    (["--batch_size=1.5"], "--batch_size is 1.5: it must be a whole number"),
    (["--batch_size=True"], "--batch_size is True: it must be a whole number"),
    (["--do_eval=maybe"], "--do_eval is 'maybe': it must be True or False"),
    (["--do_eval=2"], "--do_eval is 2: it must be True or False"),
    (["--top_mlp=3"], "--top_mlp is 3: it must be a list of whole numbers"),
    (["--top_mlp=[32,a,1]"], "it must be a list of whole numbers"),
    (["--top_mlp=[32,1"], "it must be a list of whole numbers"),
    (["--top_mlp=[]"], "it must be a list of sizes above 0"),
    (["--bottom_mlp=[0,16]"], "it must be a list of sizes above 0"),
    (["--device_target=TPU"], "must be one of Ascend, GPU, CPU"),
    (["--batchsize=3"], "did you mean --batch_size"),
    (["--batch=3"], "knows no option '--batch=3'"),
    (["--checkpoint_path=x"], "knows no option '--checkpoint_path=x': it is an option of eval"),
    (["stray"], "knows no option 'stray'"),
    (["--lr=1", "--lr=2"], "--lr is given 2 times"),
    (["--lr"], "expected one argument"),
    (["--dataset_path="], "--dataset_path is '': it must not be empty"),
    (["--config_path=absent.yaml"], "absent.yaml is not a file"),
    (["--top_mlp=[32,2]"], "top_mlp \\[32,2\\] must end with 1"),
    (["--emb_dim=8"], "must equal emb_dim 8"),
    (["--interaction=cat", "--self_interaction"], "no effect with interaction cat"),
    (["--device_target=CPU", "--compute_dtype=float16"], "compute_dtype float16 is for Ascend and GPU"),
    (["--device_target=CPU", "--device_id=1"], "device_id 1 has no effect"),
    (["--mlp_optimizer=rowwise_adagrad"], "mlp_optimizer is 'rowwise_adagrad': it must be one of"),
    (["--reset_tables_each_epoch=True"], "reset_tables_each_epoch has no effect with epochs 1"),
    (["--towers=3"], "towers 3 must divide emb_dim 16"),
    (["--restart_lr_each_epoch=True", "--warmup_steps=9"], "restart_lr_each_epoch has no effect with epochs 1"),
    (["--restart_lr_each_epoch=True", "--epochs=2"], "no effect with a constant rate without warmup_steps"),
    (["--early_stopping=3", "--do_eval=False"], "early_stopping 3 has no effect with do_eval False"),
    (["--label_smoothing=1"], "label_smoothing is 1.0: it must be 0 or more, and below 1"),
    (["--dcn_rank=8"], "dcn_rank has no effect with interaction dot: drop it or use dcnv2"),
    (["--interaction=dcnv2", "--self_interaction"], "no effect with interaction dcnv2"),
    (["--interaction_op=dcnv2", "--interaction=cat"], "--interaction is given 2 times"),
    (["--dropout=1"], "dropout is 1.0: it must be 0 or more, and below 1"),
    (["--dropout=0.1", "--bottom_mlp=[16]", "--top_mlp=[1]"], "dropout 0.1 has no effect without hidden layers"),
    (["--decay_share=0.3"], "decay_share and lr_end_factor have no effect with lr_schedule constant"),
    (["--lr_schedule=cosine", "--decay_share=0.3", "--decay_steps=9"], "both say how long the decay takes"),
    (["--device_target=CPU", "--loss_scale=8"], "loss_scale 8.0 has no effect"),
]


@pytest.mark.parametrize(("argv", "message"), WRONG_FLAGS)
def test_wrong_flag_is_refused(argv, message):
    with pytest.raises(InputError, match=message):
        resolve("train", argv)


WRONG_INPUTS = [
    (["--numeric_transform=rank"], "must be one of log, standard_log, quantile"),
    (["--numeric_buckets=1"], "must be 0, or lie between 2 and 10000"),
    (["--numeric_buckets=10001"], "must be 0, or lie between 2 and 10000"),
    (["--category_counts", "--hash_rows=10"], "category_counts needs a vocabulary, which hash_rows does without"),
    (["--vocab_path=x", "--numeric_transform=quantile"], "numeric_transform has no effect with vocab_path"),
    (["--vocab_path=x", "--missing_indicators"], "missing_indicators has no effect with vocab_path"),
    (["--vocab_path=x", "--numeric_buckets=3"], "numeric_buckets has no effect with vocab_path"),
    (["--vocab_path=x", "--category_counts"], "category_counts has no effect with vocab_path"),
]


@pytest.mark.parametrize(("argv", "message"), WRONG_INPUTS)
def test_wrong_choice_of_inputs_is_refused(argv, message):
    with pytest.raises(InputError, match=message):
        resolve("preprocess_data", argv)


WRONG_YAML = [
    ("lr: 0.1\nlr: 0.2\n", "line 2: option 'lr' is given twice"),
    ("learning_rate: 0.1\n", "unknown option 'learning_rate'"),
    ("batchsize: 1\n", "did you mean batch_size"),
    ("config_path: x.yaml\n", "config_path names a YAML file and can't stand in one"),
    ("lr: [0.1]\n", "lr is \\[0.1\\]: it must be a number"),
    ("batch_size: -1\n", "batch_size is -1: it must be a finite number above 0"),
    ("- lr\n", "it must hold lines of the form"),
    ("lr: {\n", "is not valid YAML"),
    ("bottom_mlp: [8]\n", "must equal emb_dim 16"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_YAML)
def test_wrong_yaml_is_refused_by_its_name(tmp_path, text, message):
    path = yaml_file(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        resolve("train", [f"--config_path={path}"])
    assert "options.yaml" in str(caught.value)
    assert "\n" not in " ".join(str(caught.value).split())


def test_options_survive_their_own_yaml(tmp_path):
    options = resolve("train", ["--device_target=CPU", "--top_mlp=[32,1]", "--lr=1e-5", "--do_eval=False"])
    path = yaml_file(tmp_path, options.to_yaml("train"))
    again = resolve("train", [f"--config_path={path}"])
    assert again == config.dataclasses.replace(options, config_path=str(path))


def test_eval_takes_the_shape_saved_beside_the_checkpoint(tmp_path):
    yaml_file(tmp_path, "emb_dim: 8\nbottom_mlp: [32, 8]\nlr: 0.5\neval_batch_size: 7\n", "dlrm.yaml")
    options = resolve("eval", [f"--checkpoint_path={tmp_path / 'dlrm.ckpt'}"])
    assert (options.emb_dim, options.bottom_mlp) == (8, (32, 8))
    assert options.eval_batch_size == 16384  # only the network's shape is taken
    assert resolve("eval", [f"--checkpoint_path={tmp_path}"]).emb_dim == 8
    wider = resolve("eval", [f"--checkpoint_path={tmp_path / 'dlrm.ckpt'}", "--emb_dim=4", "--bottom_mlp=[4]"])
    assert wider.emb_dim == 4


def test_every_option_has_a_program_help_and_reader():
    readers = {program: f"{program}.py" for program in PROGRAMS}
    readers |= {
        program: f"src/{program}.py" for program in ("preprocess_data", "synthetic", "table_accuracy", "report")
    }
    for name, option in OPTIONS.items():
        assert option.metadata["programs"]
        assert set(option.metadata["programs"]) <= set(PROGRAMS)
        assert option.metadata["help"]
        for program in option.metadata["programs"]:
            text = (ROOT / readers[program]).read_text()
            if program == "preprocess_data":
                text += (ROOT / "src/preprocessing/run.py").read_text().replace("options.", "config.")
            if "config.network()" in text:
                text += "".join(f'"{name}"' for name in NETWORK)
            read = re.search(rf'config\.{name}\b|"{name}"', text)
            assert read or name == "config_path", f"{readers[program]} does not read {name}"


@pytest.mark.parametrize("path", SHOWN)
def test_every_flag_shown_to_users_exists(path):
    """Flags of our programs; a line that calls something else is passed over."""
    text = (ROOT / path).read_text().replace("\\\n", " ")
    programs = {f"{program}.py": program for program in PROGRAMS}
    for line in text.splitlines():
        for file, program in programs.items():
            if re.search(rf"(python\S*|run) .*\b{file}", line):
                for flag in re.findall(r"--(\w+)=", line):
                    assert flag in options_of(program), f"{path}: {file} has no --{flag}"


def test_preprocessing_reads_a_yaml_that_is_named(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("min_count: 3\nlr: 0.01\nbottom_mlp: [8, 16]\n")
    assert resolve("preprocess_data", [f"--config_path={path}"]).min_count == 3
    assert resolve("preprocess_data", []).min_count == 1
    assert resolve("train", [f"--config_path={path}", "--device_target=CPU"]).lr == 0.01


def test_network_options_belong_to_all_programs_that_build_it():
    for name in NETWORK:
        assert OPTIONS[name].metadata["programs"] == ("train", "eval", "export", "table_accuracy")
