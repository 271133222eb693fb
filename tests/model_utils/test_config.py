"""Options: default < saved < YAML < flag, and every way to get one wrong."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from src.base.errors import InputError
from src.metrics.monitored import MONITORED
from src.model_utils.config import to_yaml
from src.model_utils.options import free_names, option, options_of
from src.network.interactions import INTERACTIONS
from src.options import PROGRAMS, EvalOptions, ExportOptions, PreprocessDataOptions, TrainOptions, resolve
from src.training.options import DataSpec, EvaluationSpec, KeptSpec, steps_between
from src.training.rules import RULES
from src.training.schedule import SCHEDULES

ROOT = Path(__file__).parents[2]
SHOWN = [path.relative_to(ROOT).as_posix() for name in ("README*.md", "docs/*.md", "scripts/*.sh")
         for path in sorted(ROOT.glob(name))]  # fmt: skip


def yaml_file(folder, text, name="options.yaml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_flag_over_yaml_over_default(tmp_path):
    path = yaml_file(tmp_path, "lr: 0.5\nbatch_size: 64\n")
    options = resolve(TrainOptions, [f"--config_path={path}", "--batch_size=32"])
    assert (options.optimization.lr, options.data.batch_size, options.data.seed) == (0.5, 32, 1)


def test_device_chooses_the_yaml():
    chosen = {device: resolve(TrainOptions, [f"--device_target={device}"]) for device in ("Ascend", "GPU", "CPU")}
    assert resolve(TrainOptions, []) == chosen["Ascend"]
    assert {device: options.device.device_target for device, options in chosen.items()} == {d: d for d in chosen}
    assert [options.data.batch_size for options in chosen.values()] == [128, 1280, 128]


@pytest.mark.parametrize("name", ["npu_config.yaml", "gpu_config.yaml", "cpu_config.yaml", "best_config.yaml"])
def test_shipped_yaml_holds_only_what_differs(name):
    resolve(TrainOptions, [f"--config_path={ROOT / name}"])
    for key, value in yaml.safe_load((ROOT / name).read_text()).items():
        assert key == "device_target" or PROGRAMS.all_options()[key].default != value


def test_one_epoch_of_the_recipe_for_cpus_is_one():
    """What it says of each epoch stays, and is none."""
    one = resolve(TrainOptions, ["--device_target=CPU", "--epochs=1"])
    assert (one.schedule.epochs, one.optimization.optimizer) == (1, "adagrad")


@pytest.mark.parametrize("config", [[], [f"--config_path={ROOT / 'npu_config.yaml'}", "--device_target=CPU"]])
def test_defaults_of_the_public_original(config):
    options = resolve(TrainOptions, config)
    logs = options.kept.eval_file_name, options.kept.loss_file_name
    assert (options.device.device_target, *logs) == ("CPU" if config else "Ascend", "./auc.log", "./loss.log")
    evaluation, network = options.evaluation, options.network
    assert (options.optimization.lr, options.schedule.epochs) == (0.15, 1)
    assert (evaluation.do_eval, evaluation.eval_batch_size) == (True, 16384)
    assert (network.emb_dim, network.bottom_mlp, network.top_mlp) == (16, (512, 256, 64, 16), (512, 256, 1))
    assert resolve(EvalOptions, []).logs.eval_file_name == "./acc.log"


def test_lists_booleans_and_exponents(tmp_path):
    options = resolve(
        TrainOptions, ["--top_mlp=[32,1]", "--do_eval=false", "--lr=1e-3", "--shuffle", "--overwrite=True"]
    )
    assert (options.network.top_mlp, options.evaluation.do_eval) == ((32, 1), False)
    assert (options.optimization.lr, options.data.shuffle, options.kept.overwrite) == (0.001, True, True)
    path = yaml_file(tmp_path, "lr: 1e-3\nbottom_mlp: [8, 16]\ndo_eval: no\n")
    options = resolve(TrainOptions, [f"--config_path={path}"])
    assert (options.optimization.lr, options.network.bottom_mlp) == (0.001, (8, 16))
    assert not options.evaluation.do_eval


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
    (["--learning_rate=1"], "did you mean --lr\\?"),
    (["--no_such_thing=1"], "no option '--no_such_thing=1' \\(--help lists the options\\)"),
    (["--batch=3"], "knows no option '--batch=3'"),
    (["--checkpoint_path=x"], "knows no option '--checkpoint_path=x': it is an option of eval"),
    (["stray"], "knows no option 'stray': all are written --NAME=VALUE"),
    (["--device=CPU"], "did you mean --device_target or --device_id or --device_memory_mb"),
    (["--lr=1", "--lr=2"], "--lr is given 2 times"),
    (["--lr"], "expected one argument"),
    (["--dataset_path="], "--dataset_path is '': it must not be empty"),
    (["--config_path=absent.yaml"], "absent.yaml is not a file"),
    (["--top_mlp=[32,2]"], "top_mlp \\[32,2\\] must end with 1"),
    (["--emb_dim=8"], "must equal emb_dim 8"),
    (["--interaction=cat", "--self_interaction"], "no effect with interaction cat"),
    (["--device_target=CPU", "--compute_dtype=float16"], "compute_dtype float16 is for Ascend and GPU"),
    (["--device_target=CPU", "--compute_dtype=bfloat16"], "compute_dtype bfloat16 is for Ascend and GPU"),
    (
        ["--device_target=Ascend", "--compute_dtype=bfloat16", "--loss_scale=8"],
        "loss_scale 8.0 has no effect with comp",
    ),
    (["--device_target=Ascend", "--compute_dtype=float16", "--loss_scale=much"], "loss_scale is '?much'?: it must be"),
    (["--device_target=Ascend", "--compute_dtype=float16", "--loss_scale=0"], "loss_scale is 0.0: it must be a finite"),
    (["--device_target=CPU", "--device_id=1"], "device_id 1 has no effect"),
    (["--mlp_optimizer=rowwise_adagrad"], "mlp_optimizer is 'rowwise_adagrad': it must be one of"),
    (["--towers=3"], "towers 3 must divide emb_dim 16"),
    (["--restart_lr_each_epoch=True", "--epochs=2"], "no effect with a constant rate without warmup_steps"),
    (["--early_stopping=3", "--do_eval=False"], "early_stopping 3 has no effect with do_eval False"),
    (["--label_smoothing=1"], "label_smoothing is 1.0: it must be 0 or more, and below 1"),
    (["--dcn_rank=8"], "dcn_rank 8 has no effect with interaction dot: drop it or use dcnv2"),
    (["--interaction=dcnv2", "--self_interaction"], "no effect with interaction dcnv2"),
    (["--interaction_op=dcnv2", "--interaction=cat"], "--interaction is given 2 times"),
    (["--dropout=1"], "dropout is 1.0: it must be 0 or more, and below 1"),
    (["--dropout=0.1", "--bottom_mlp=[16]", "--top_mlp=[1]"], "dropout 0.1 has no effect without hidden layers"),
    (["--decay_share=0.3"], "decay_share and lr_end_factor have no effect with lr_schedule constant"),
    (["--lr_schedule=cosine", "--decay_share=0.3", "--decay_steps=9"], "both say how long the decay takes"),
    (["--device_target=CPU", "--loss_scale=8"], "loss_scale 8.0 has no effect with device_target CPU"),
    (["--loss_scale=8"], "loss_scale 8.0 has no effect with compute_dtype float32"),
    (["--eval_steps=often"], "--eval_steps is 'often': it must be a whole number or epoch"),
    (["--eval_steps=-1"], "--eval_steps is -1: it must be 0 or more, or epoch"),
    (["--monitor=f1"], "monitor is 'f1': it must be one of acc, auc, logloss, normalised_entropy"),
    (["--monitor=logloss", "--do_eval=False"], "monitor logloss has no effect with do_eval False"),
]


@pytest.mark.parametrize(("argv", "message"), WRONG_FLAGS)
def test_wrong_flag_is_refused(argv, message):
    with pytest.raises(InputError, match=message):
        resolve(TrainOptions, argv)


WRONG_INPUTS = [
    (["--numeric_transform=rank"], "must be one of log, standard_log, quantile"),
    (["--numeric_buckets=1"], "must be 0, or lie between 2 and 10000"),
    (["--numeric_buckets=10001"], "must be 0, or lie between 2 and 10000"),
    (["--category_counts", "--hash_rows=10"], "category_counts needs a vocabulary, which hash_rows does without"),
    (["--vocab_path=x", "--numeric_transform=quantile"], "numeric_transform quantile has no effect with vocab_path"),
    (["--vocab_path=x", "--missing_indicators"], "missing_indicators True has no effect with vocab_path"),
    (["--vocab_path=x", "--numeric_buckets=3"], "numeric_buckets 3 has no effect with vocab_path"),
    (["--vocab_path=x", "--category_counts"], "category_counts True has no effect with vocab_path"),
]


@pytest.mark.parametrize(("argv", "message"), WRONG_INPUTS)
def test_wrong_choice_of_inputs_is_refused(argv, message):
    with pytest.raises(InputError, match=message):
        resolve(PreprocessDataOptions, argv)


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
        resolve(TrainOptions, [f"--config_path={path}"])
    assert "options.yaml" in str(caught.value)
    assert "\n" not in " ".join(str(caught.value).split())


def test_options_survive_their_own_yaml(tmp_path):
    options = resolve(TrainOptions, ["--device_target=CPU", "--top_mlp=[32,1]", "--lr=1e-5", "--do_eval=False"])
    path = yaml_file(tmp_path, to_yaml(*vars(options).values()))
    again = resolve(TrainOptions, [f"--config_path={path}"])
    assert vars(again) | {"yaml": None} == vars(options) | {"yaml": None}


def test_eval_takes_the_shape_saved_beside_the_checkpoint(tmp_path):
    yaml_file(tmp_path, "emb_dim: 8\nbottom_mlp: [32, 8]\nlr: 0.5\neval_batch_size: 7\n", "dlrm.yaml")
    options = resolve(EvalOptions, [f"--checkpoint_path={tmp_path / 'dlrm.ckpt'}"])
    assert (options.network.emb_dim, options.network.bottom_mlp) == (8, (32, 8))
    assert options.score.eval_batch_size == 16384  # only the network's shape is taken
    assert resolve(EvalOptions, [f"--checkpoint_path={tmp_path}"]).network.emb_dim == 8
    wider = resolve(EvalOptions, [f"--checkpoint_path={tmp_path / 'dlrm.ckpt'}", "--emb_dim=4", "--bottom_mlp=[4]"])
    assert wider.network.emb_dim == 4


def readers():
    """Names that are read as attributes, or as texts, anywhere in the programs and in src but where options stand."""
    files = [path for path in (*ROOT.glob("*.py"), *(ROOT / "src").rglob("*.py")) if path.name != "options.py"]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text()))]
    own = [node for path in (ROOT / "src").rglob("options.py") for node in ast.walk(ast.parse(path.read_text()))]
    of_specs = {node.attr for node in own if isinstance(node, ast.Attribute)}
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return of_specs | {node.attr for node in nodes if isinstance(node, ast.Attribute)} | texts


def test_every_option_has_help_and_a_reader():
    read = readers()
    for program in PROGRAMS.programs.values():
        for name, one in options_of(program).items():
            assert one.metadata["help"], name
            assert name in read, f"nobody reads {name}"


def test_an_option_stands_once():
    """Programs that share one agree in its type and rule, and declare no two of one name."""
    found = {}
    for program in PROGRAMS.programs.values():
        for name, one in options_of(program).items():
            rule = one.metadata["rule"]
            same = (one.kind, rule.words if rule else "", one.metadata["network"])
            assert found.setdefault(name, same) == same, name

    @dataclass(frozen=True)
    class Again:
        lr: float = option(0.1, "again")

    @dataclass(frozen=True)
    class Twice:
        one: Again
        other: Again

    with pytest.raises(ValueError, match="Twice has the option lr twice"):
        options_of(Twice)


def test_choices_are_those_that_are_implemented():
    options = options_of(TrainOptions)
    for name, known in {"optimizer": RULES, "interaction": INTERACTIONS, "lr_schedule": SCHEDULES,
                        "monitor": MONITORED}.items():  # fmt: skip
        assert all(options[name].metadata["rule"].holds(choice) for choice in known)
        assert not options[name].metadata["rule"].holds("other")


def test_rules_belong_to_the_programs_that_they_concern(tmp_path):
    """Of one YAML for all: what training refuses, programs that do not train take."""
    path = yaml_file(tmp_path, "mixed_dims: 0.3\noptimizer: adam\nloss_scale: 8\n")
    assert resolve(EvalOptions, [f"--config_path={path}", "--device_target=CPU"]).network.mixed_dims == 0.3
    assert resolve(ExportOptions, [f"--config_path={path}", "--device_target=CPU"]).network.mixed_dims == 0.3
    with pytest.raises(InputError, match="mixed_dims 0.3 packs several vectors in a row"):
        resolve(TrainOptions, [f"--config_path={path}", "--device_target=CPU"])


@pytest.mark.parametrize(("given", "steps"), [("0", 12), ("7", 7), ("epoch", 120)])
def test_steps_between_may_be_an_epoch(tmp_path, given, steps):
    """By flag and by YAML, for evaluations and saves; 0 is a tenth of one."""
    path = yaml_file(tmp_path, f"save_steps: {given}\n")
    options = resolve(TrainOptions, [f"--config_path={path}", f"--eval_steps={given}"])
    assert steps_between(options.evaluation.eval_steps, 120) == steps
    assert steps_between(options.kept.save_steps, 120) == steps
    assert steps_between(0, 3) == 1


def test_options_that_are_free_when_going_on_say_so_themselves():
    assert {"ckpt_path", "log_steps", "report", "save_steps"} <= set(free_names(KeptSpec))
    assert set(free_names(DataSpec)) == {"dataset_path"}
    assert set(free_names(EvaluationSpec())) == {"eval_steps", "eval_batch_size", "early_stopping"}


@pytest.mark.parametrize("path", SHOWN)
def test_every_flag_shown_to_users_exists(path):
    """Flags of our programs; a line that calls something else is passed over."""
    text = (ROOT / path).read_text().replace("\\\n", " ")
    programs = {f"{name}.py": program for name, program in PROGRAMS.programs.items()}
    for line in text.splitlines():
        for file, program in programs.items():
            if re.search(rf"(python\S*|run) .*\b{file}", line):
                for flag in re.findall(r"--(\w+)=", line):
                    assert flag in options_of(program), f"{path}: {file} has no --{flag}"


def test_preprocessing_reads_a_yaml_that_is_named(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("min_count: 3\nlr: 0.01\nbottom_mlp: [8, 16]\n")
    assert resolve(PreprocessDataOptions, [f"--config_path={path}"]).preprocessing.min_count == 3
    assert resolve(PreprocessDataOptions, []).preprocessing.min_count == 1
    assert resolve(TrainOptions, [f"--config_path={path}", "--device_target=CPU"]).optimization.lr == 0.01


def test_network_options_belong_to_all_programs_that_build_it():
    of_train = {name for name, one in options_of(TrainOptions).items() if one.metadata["network"]}
    assert len(of_train) == 9
    for name in ("eval", "export", "table_accuracy"):
        assert of_train <= set(options_of(PROGRAMS.programs[name]))
