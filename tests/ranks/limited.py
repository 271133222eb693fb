"""Run as a program, this is eval.py or export.py in a process that may not have the memory for the tables of a whole
checkpoint, as RLIMIT_DATA ("ulimit -d") has it: `limited.py PROGRAM SHARE OPTION...`.

The limit is what MindSpore has taken when it has run a graph, which depends on the machine, and a share of the tables.
That the tables are refused to it as a whole is in refused_RANK.txt.
"""

import ctypes
import gc
import importlib
import re
import resource
import sys
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]


class _Double(nn.Cell):
    def construct(self, x):
        return x + x


def limit_memory(table_bytes, share):
    """From now on no more memory than MindSpore has when it has begun, and a share of the tables'."""
    _Double()(Tensor(np.ones(1, np.float32))).asnumpy()
    taken = 1024 * int(re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[1])
    resource.setrlimit(resource.RLIMIT_DATA, (taken + int(share * table_bytes),) * 2)


def refusal_of(work):
    """What is said to who does some work that is refused."""
    from src.base.errors import InputError

    try:
        work()
    except InputError as error:
        said = str(error)
    else:
        said = "nothing: it was done"
    gc.collect()  # or what was loaded would stay
    return said


def limited(begin, share, path, network, then=lambda begun, rank: None):
    """What makes MindSpore ready, and limits the memory, once."""
    from src.checkpoints import checkpoint
    from src.model_utils.local_adapter import get_rank_id

    manifest, seen = checkpoint.manifest_beside(path), []

    def begin_limited(*given):
        begun = begin(*given)
        if not seen:
            seen.append(get_rank_id())
            limit_memory(4 * network.emb_dim * sum(manifest.rows_of_tables), share)
            said = refusal_of(lambda: checkpoint.load(path, manifest, network))
            Path(f"refused_{seen[0]}.txt").write_text(said)
            then(begun, seen[0])
        return begun

    return begin_limited


def small_stacks():
    """Threads that begin from now on have stacks which take little of the memory that limits are of."""
    libc, attributes = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_attr_init(attributes)
    libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(1 << 20))
    assert not libc.pthread_setattr_default_np(attributes)


def launch_evaluation(argv):
    """Two ranks of this program, in a launcher."""
    from src.launch import Launch, cluster_of
    from src.ranks.rank_logs import RankLogs

    return Launch(cluster_of({}, 2), [sys.executable, __file__, *argv], RankLogs("eval_"), goes_on=False).wait()


def main(argv):
    small_stacks()
    from src.data.manifest import find
    from src.model_utils import device_target
    from src.options import PROGRAMS, resolve
    from src.training import evaluation, prepare

    program, share, *options = argv
    named = resolve(PROGRAMS.programs[program], options)
    path, network = Path((named.export if program == "export" else named.score).checkpoint_path), named.network

    def look_at_damaged(runtime, rank):
        """All ranks say so where one finds that a part is damaged."""
        if (damaged := path.with_name("damaged.ckpt")).is_file():
            data = find(named.score.dataset_path)
            said = refusal_of(
                lambda: evaluation.evaluate_checkpoint(damaged, data, data.part_to_score(), network, runtime, 64)
            )
            Path(f"damaged_{rank}.txt").write_text(said)

    if program == "export":
        device_target.set_device = limited(device_target.set_device, float(share), path, network)
    else:
        prepare.start = limited(prepare.start, float(share), path, network, look_at_damaged)
    importlib.import_module(program).main(options)


if __name__ == "__main__":
    from src.base.errors import run

    run(main)
