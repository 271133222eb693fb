"""What ties the programs to a machine: options and devices.

MindSpore reads its log level when it is imported, which every program does after this package. Warnings, such as
one for each operator that a later release will rename, are left out unless the user asks for them.
"""

import os

os.environ.setdefault("GLOG_v", "3")

ALIVE_FOLDER = "DLRM_ALIVE_FOLDER"  # names the folder in which src/launch.py looks for signs of life of the ranks
