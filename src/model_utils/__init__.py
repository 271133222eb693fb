"""What ties the programs to a machine: options and devices.

MindSpore reads its log levels when it is imported, which every program does after this package. Unless the user says
otherwise, what its C++ parts for devices and for several processes warn of is left out, such as a line for each try to
reach a process that has not started yet. Its other warnings are shown, deprecations among them.
"""

import os

os.environ.setdefault("MS_SUBMODULE_LOG_v", "{COMMON:3,DEVICE:3,DISTRIBUTED:3,ME:3}")

# UCX, by which ranks on CPU may send, reads its own settings when it is loaded. To copy from another process's memory
# (cma) is forbidden in many containers, which UCX finds out too late; signals and allocations are no business of its.
for _name, _value in {"TLS": "^cma", "ERROR_SIGNALS": "", "MEM_EVENTS": "n", "WARN_UNUSED_ENV_VARS": "n",
                      "LOG_LEVEL": "error"}.items():  # fmt: skip
    os.environ.setdefault(f"UCX_{_name}", _value)

ALIVE_FOLDER = "DLRM_ALIVE_FOLDER"  # names the folder in which src/launch.py looks for signs of life of the ranks

CPU_THREADS = "DLRM_CPU_THREADS"
"""Environment variable: how many threads compiled operators may use, as OMP_NUM_THREADS said at first; "" for any."""
