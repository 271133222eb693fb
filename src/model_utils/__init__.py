"""What ties the programs to a machine: options and devices.

MindSpore reads its log levels when it is imported, which every program does after this package. Unless the user says
otherwise, what its C++ parts for devices and for several processes warn of is left out, such as a line for each try to
reach a process that has not started yet. Its other warnings are shown, deprecations among them.
"""

import os

os.environ.setdefault("MS_SUBMODULE_LOG_v", "{COMMON:3,DEVICE:3,DISTRIBUTED:3,ME:3}")

ALIVE_FOLDER = "DLRM_ALIVE_FOLDER"  # names the folder in which src/launch.py looks for signs of life of the ranks
