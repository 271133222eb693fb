"""How the C++ program is built."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from program_310 import ENVIRONMENT, run, scored, scores_in


def test_help_and_build_options(program):
    assert "--model=PATH" in run(program, "--help").stdout
    build = ["bash", str(ROOT / "ascend310_infer/build.sh")]
    for arguments, environment, message in (
        (["--gpu"], {}, "unknown option --gpu"),
        (["--cpu"], {"CXX": "nothing++"}, "nothing++ is missing: install it"),
        ([], {}, "LITE_HOME is not set"),
        ([], {"LITE_HOME": "/nothing"}, "LITE_HOME /nothing is not a folder"),
        ([], {"LITE_HOME": str(ROOT / "src")}, "holds no include/api/model.h or include/cxx_api/model.h"),
    ):
        done = subprocess.run([*build, *arguments], capture_output=True, text=True, env=ENVIRONMENT | environment,
                              check=False)  # fmt: skip
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert message in done.stderr


def test_simultaneous_builds_wait_for_each_other(program):
    command = ["bash", str(ROOT / "ascend310_infer/build.sh"), "--cpu"]
    builds = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ends = [build.communicate() for build in builds]
    assert [build.returncode for build in builds] == [0] * 3, ends
    assert {out for out, _ in ends} == {f"unchanged {program}\n"}  # nothing was to be built


def test_links_to_its_folder_lead_to_the_same_build(program, here):
    for name in ("ascend310_infer", "scripts", "build"):
        (here / name).symlink_to(ROOT / name)
    command = ["bash", "ascend310_infer/build.sh", "--cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"unchanged {program}\n"


def test_it_is_built_again_only_where_something_changed(here):
    """In a copy, by a CMake that makes empty files, or fails where it finds one named fail."""
    for name in ("ascend310_infer/build.sh", "ascend310_infer/CMakeLists.txt", "scripts/common.sh"):
        (here / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, here / name)
    for name in ("ascend310_infer/src/main.cc", "lite/lib/lite.so", "other/lite.so", "bin/cmake"):
        (here / name).parent.mkdir(parents=True)
        (here / name).touch()
    (here / "bin/cmake").write_text(
        f'#!/bin/bash\n[ ! -e {here}/fail ] || exit 1\n[ "$1" != --build ] || touch "$2"/{{main,libdlrm_lite.so}}\n'
    )
    (here / "bin/cmake").chmod(0o755)
    built = here / "build/ascend310_infer/main/built"

    def builds(lite="lite", code=0):
        surroundings = {"PATH": f"{here}/bin:{os.environ['PATH']}", "LITE_HOME": str(here / lite)}
        done = subprocess.run(["bash", "ascend310_infer/build.sh"], capture_output=True, text=True, check=False,
                              env=ENVIRONMENT | surroundings)  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout.startswith("building the C++ program")

    assert [builds(), builds(), builds("other"), builds("other"), builds()] == [True, False, True, False, True]
    for folder in (here / "ascend310_infer", here / "lite"):
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (100, 100))
    for changed in ("ascend310_infer/src/main.cc", "ascend310_infer/CMakeLists.txt", "lite/lib/lite.so"):
        os.utime(built, (200, 200))
        assert not builds()
        os.utime(here / changed, (300, 300))
        assert builds()
        os.utime(here / changed, (100, 100))
    (built.parent / "main").unlink()
    (here / "fail").touch()
    assert [builds(code=2), builds(code=2)] == [True, True]
    (here / "fail").unlink()
    assert [builds(), builds()] == [True, False]


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


LITE = ROOT / "build/mindspore_lite-2.0.0/mindspore_lite"


def configure(lite, *options):
    """What CMake makes of the program's folder and a folder of MindSpore Lite, in b/."""
    command = ["cmake", "-S", str(ROOT / "ascend310_infer"), "-B", "b", f"-DLITE_HOME={lite}", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_portable_program_uses_no_more_than_any_processor_has(program, here):
    for native in ("ON", "OFF"):
        assert configure(LITE, f"-DNATIVE={native}").returncode == 0
        for target in ("main", "lite"):
            flags = (here / f"b/CMakeFiles/{target}.dir/flags.make").read_text()
            assert ("-march=native" in flags) == (native == "ON")


def package(folder, headers):
    """A release's package for Ascend, of the wheel's headers and libraries: its headers below include/`headers`."""
    include, lib = folder / "runtime/include", folder / "runtime/lib"
    for path in sorted((LITE / "include").rglob("*.h")):
        top, *rest = path.relative_to(LITE / "include").parts
        place = include.joinpath(headers if top == "api" else top, *rest)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(path.read_text().replace('"include/api/', f'"include/{headers}/'))
    lib.mkdir()
    for path in (LITE / "lib").iterdir():
        os.symlink(path, lib / path.name.replace("libmindspore-extendrt_python.so", "libmindspore-lite.so"))
    if headers == "cxx_api":
        subprocess.run(
            [
                "g++",
                "-shared",
                "-Wl,-soname,libmindspore_core_lite.so",
                "-x",
                "c++",
                os.devnull,
                "-o",
                lib / "libmindspore_core_lite.so",
            ],
            check=True,
        )
    return folder


@pytest.mark.parametrize("headers", ["api", "cxx_api"])
def test_either_layout_of_a_package_is_built_and_scores_the_same(program, scored_once, exports, coded, here, headers):
    """That of releases up to 2.7.1 and of later ones; the folders are those that Lite's documentation has in
    LD_LIBRARY_PATH. Of the program they concern the library alone that calls MindSpore Lite."""
    lite = package(here / "lite", headers)
    assert (lite / "runtime/include" / headers / "model.h").is_file()
    assert configure(lite, "-DCMAKE_CXX_FLAGS_RELEASE=-O0").returncode == 0
    assert str(lite) not in "".join(
        (here / f"b/CMakeFiles/main.dir/{name}").read_text() for name in ("link.txt", "flags.make")
    )
    line = (here / "b/CMakeFiles/lite.dir/link.txt").read_text()
    for name in ("runtime/lib", "runtime/third_party/dnnl", "tools/converter/lib"):
        assert f"-Wl,-rpath,{lite}/{name} " in line
        assert f"-Wl,-rpath-link,{lite}/{name} " in line
    assert f"{lite}/runtime/lib/libmindspore-lite.so" in line
    assert ("libmindspore_core_lite.so" in line) == (headers == "cxx_api")
    done = subprocess.run(["cmake", "--build", "b", "--target", "lite"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copy(program, "b/main")
    arguments = [f"--model={exports['fp32']}", f"--input={coded}/rows"]
    # The name that the wheel's library has for itself.
    own = here / "lite/runtime/lib/libmindspore-extendrt_python.so"
    done = run("b/main", *arguments, "--device_type=CPU")
    assert (done.returncode, done.stderr) == (2, cannot_load(f"{own.name}{NOT_THERE}"))
    own.symlink_to(lite / "runtime/lib/libmindspore-lite.so")
    expected = scores_in(scored_once("fp32"), coded / "rows")
    assert np.array_equal(scored("b/main", exports["fp32"], coded / "rows"), expected)
    done = run("b/main", *arguments, "--device_type=Ascend")
    assert (done.returncode, "device_type Ascend with device_id 0: MindSpore Lite can't load" in done.stderr) == (
        2,
        True,
    )


NOT_THERE = ": cannot open shared object file: No such file or directory"


def cannot_load(why):
    return (
        f"error: MindSpore Lite can't be loaded ({why}): build the program again with ascend310_infer/build.sh, "
        "and leave libdlrm_lite.so beside it and LITE_HOME in its place\n"
    )


def test_only_scoring_needs_the_library_beside_the_program(program, exports, coded, here):
    """Which must be that of the same build."""
    shutil.copy(program, here / "main")
    assert run("./main", "--help").stdout == run(program, "--help").stdout
    assert "input nothing holds no index" in run("./main", f"--model={exports['fp32']}", "--input=nothing").stderr
    arguments = [f"--model={exports['fp32']}", f"--input={coded}/rows", "--device_type=CPU"]
    done = run("./main", *arguments)
    library = here / "libdlrm_lite.so"
    assert (done.returncode, done.stderr) == (2, cannot_load(f"{library}{NOT_THERE}"))
    subprocess.run(["g++", "-shared", "-x", "c++", os.devnull, "-o", library], check=True)
    done = run("./main", *arguments)
    assert done.returncode == 2
    name = re.search(r"undefined symbol: (dlrm_load_graph_[0-9a-f]{16})\)", done.stderr)
    assert done.stderr == cannot_load(f"{library}: undefined symbol: {name[1]}")
    assert sorted(path.name for path in here.iterdir()) == ["libdlrm_lite.so", "main"]


def test_a_package_whose_library_is_missing_is_refused(program, here):
    lite = package(here / "lite", "cxx_api")
    (lite / "runtime/lib/libmindspore-lite.so").unlink()
    done = configure(lite)
    assert done.returncode == 1
    assert "holds no libmindspore-lite.so in" in " ".join(done.stderr.split())
