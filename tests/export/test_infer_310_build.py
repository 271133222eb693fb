"""How the C++ program is built."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from program_310 import ENVIRONMENT, run


def test_help_and_build_options(program):
    assert "--model=PATH" in run(program, "--help").stdout
    build = ["bash", str(ROOT / "ascend310_infer/build.sh")]
    for arguments, environment, message in (
        (["--gpu"], {}, "unknown option --gpu"),
        (["--cpu"], {"CXX": "nothing++"}, "nothing++ is missing: install it"),
        ([], {}, "LITE_HOME is not set"),
        ([], {"LITE_HOME": "/nothing"}, "LITE_HOME /nothing is not a folder"),
        ([], {"LITE_HOME": str(ROOT / "src")}, "holds no include/api/model.h"),
    ):
        done = subprocess.run([*build, *arguments], capture_output=True, text=True, env=ENVIRONMENT | environment,
                              check=False)  # fmt: skip
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert message in done.stderr


def test_simultaneous_builds_wait_for_each_other(program):
    command = ["bash", str(ROOT / "ascend310_infer/build.sh"), "--cpu"]
    builds = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    ends = [build.communicate() for build in builds]
    assert [build.returncode for build in builds] == [0] * 6, ends
    assert {out for out, _ in ends} == {f"built {program}\n"}


def test_a_python_without_pip_is_named(here):
    """In a copy of the scripts, for the library is there already."""
    for name in ("ascend310_infer/build.sh", "scripts/common.sh"):
        (here / name).parent.mkdir()
        shutil.copyfile(ROOT / name, here / name)
    (here / "python").write_text(f'#!/bin/bash\n[ "$1" = -c ] && exec {sys.executable} "$@"\nexit 1\n')
    (here / "python").chmod(0o755)
    done = subprocess.run(["bash", "ascend310_infer/build.sh", "--cpu"], capture_output=True, text=True, check=False,
                          env=ENVIRONMENT | {"PYTHON": str(here / "python")})  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: \S*python has no pip, which fetches mindspore-lite 2.0.0: set PYTHON [^\n]*\n", done.stderr
    )


@pytest.mark.parametrize("native", ["ON", "OFF"])
def test_a_portable_program_uses_no_more_than_any_processor_has(program, here, native):
    lite = ROOT / "build/mindspore_lite-2.0.0/mindspore_lite"
    subprocess.run(["cmake", "-S", ROOT / "ascend310_infer", "-B", "b", f"-DLITE_HOME={lite}", f"-DNATIVE={native}"],
                   check=True, capture_output=True)  # fmt: skip
    flags = (here / "b/CMakeFiles/main.dir/flags.make").read_text()
    assert ("-march=native" in flags) == (native == "ON")


def test_a_package_for_ascend_is_linked_with_its_three_folders(program, here):
    """Laid out as a release's package is: the folders that its documentation puts in LD_LIBRARY_PATH."""
    lite = ROOT / "build/mindspore_lite-2.0.0/mindspore_lite"
    (here / "lite/runtime/lib").mkdir(parents=True)
    os.symlink(lite / "include", here / "lite/runtime/include")
    os.symlink(lite / "lib/libmindspore-extendrt_python.so", here / "lite/runtime/lib/libmindspore-lite.so")
    subprocess.run(["cmake", "-S", ROOT / "ascend310_infer", "-B", "b", f"-DLITE_HOME={here}/lite"], check=True,
                   capture_output=True)  # fmt: skip
    line = (here / "b/CMakeFiles/main.dir/link.txt").read_text()
    for name in ("runtime/lib", "runtime/third_party/dnnl", "tools/converter/lib"):
        assert f"-Wl,-rpath,{here}/lite/{name} " in line
        assert f"-Wl,-rpath-link,{here}/lite/{name} " in line
