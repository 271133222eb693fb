"""Empty stand-ins for the libraries of CANN, Huawei's software beneath MindSpore on Ascend, where there is none.

MindSpore's dry run (MS_SIMULATION_LEVEL) compiles graphs for Ascend and calls no card, but its Ascend plugin loads only
where CANN's libraries are found. Here every function of theirs that the plugin wants returns 0 and does nothing, which
is enough for a dry run, and for nothing else.
"""

import hashlib
import importlib.util
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from src.base.errors import InputError
from src.base.locks import turn
from src.base.native import BUILD

# What 0 would not do for: a map that the plugin registers things in as it is loaded, and the name of a chip.
_CODE = """
#include <cstdint>
#include <map>
#include <string>
static std::map<uint32_t, std::string> statuses;
extern "C" void* _ZN2ge13StatusFactory8InstanceEv() { return &statuses; }
extern "C" const char* aclrtGetSocName() { return "Ascend910B1"; }
"""
# In a dry run a thread for each stream calls this function of MindSpore for ever, which should wait for what a card has
# done, at most so many ms, and comes back at once: half of the processor time. Loaded before, this one does wait.
_WAITING = """
#include <unistd.h>
extern "C" int _ZN9mindspore6device6ascend27SimuFuncIaclrtProcessReportIiEET_i(int) { return usleep(10000), 0; }
"""
_OWN = frozenset(re.findall(r"(\w+)\(\) \{", _CODE))
WAITING = "waiting.so"
_FOLDER = "cann"  # the last folder of this name above a library is CANN's for MindSpore
_TOOLS = ("g++", "nm", "readelf", "ldd")
_INSTRUCTIONS = {"x86_64": "xorl %eax, %eax\nret", "aarch64": "mov x0, #0\nret"}
# Libraries that are opened by name, so that no other one lists them.
_OPENED = ("opapi", "cust_opapi", "acl_op_compiler", "acl_tdt_channel", "acl_tdt_queue", "acl_cblas", "ascend_dump",
           "ge_executor", "hccl", "msprofiler", "nnopbase", "runtime")  # fmt: skip
# Functions that are looked up by name; the name stands in the library as text.
_PREFIXES = (b"acl", b"hccl", b"Hccl", b"Msprof")
_OF_THE_COMPILER = ("_ITM", "__gmon", "_Jv", "_ZTH", "__gcov", "Py", "_Py")
# Of CANN's Python packages the one that MindSpore wants; without the other one, te, it only complains.
_PACKAGES = {"hccl/__init__.py": "", "hccl/sys_version.py": '__sys_version__ = "8.5.0"\n'}


def _mindspore_lib() -> Path:
    spec = importlib.util.find_spec("mindspore")
    if spec is None or spec.origin is None:
        raise InputError("this Python has no MindSpore: pip install -r requirements.txt")
    return Path(spec.origin).parent / "lib"


def plugin_paths() -> list[Path]:
    """Folders of MindSpore's own libraries for Ascend, which the loader must find.

    Raises:
        InputError: this MindSpore has none, as those for macOS and Windows.
    """
    lib = _mindspore_lib()
    ascend = lib / "plugin/ascend"
    if not ascend.is_dir():
        raise InputError(f"MindSpore's {lib} has no plugin for Ascend: use a wheel for Linux")
    return [ascend, lib / "plugin", lib, ascend / "ms_kernels_internal/internal_kernel/lib"]


def stand_ins() -> Path:
    """The folder that stands for CANN's, made once for a version of MindSpore, with lib64/, opp/ and python/,
    and waiting.so, to be loaded before MindSpore.

    Raises:
        InputError: what makes it is missing.
    """
    missing = [tool for tool in _TOOLS if not shutil.which(tool)]
    if missing:
        raise InputError(f"without CANN its stand-ins are built, for which {missing[0]} is missing: install g++")
    if platform.machine() not in _INSTRUCTIONS:
        raise InputError(f"there are no stand-ins of CANN for a {platform.machine()} processor: use x86_64 or aarch64")
    plugins = _plugins()
    about = [Path(__file__).read_bytes(), *(f"{path} {path.stat().st_size}".encode() for path in plugins)]
    place = BUILD / f"dryrun-{hashlib.sha256(b' '.join(about)).hexdigest()[:16]}"
    BUILD.mkdir(exist_ok=True)
    with turn(BUILD):
        if not place.is_dir():
            with tempfile.TemporaryDirectory(dir=BUILD) as folder:
                whole = Path(folder) / "whole"
                _make(whole / _FOLDER, plugins)
                whole.rename(place)
    return place / _FOLDER


def _plugins() -> list[Path]:
    """MindSpore's libraries that are linked with CANN's."""
    _, plugin, *_ = paths = plugin_paths()
    found = [path for path in paths[0].rglob("*.so*") if "aarch64" not in str(path) and "dataengine" not in path.name]
    return sorted(path for path in [*found, *plugin.glob("libmindspore*ascend.so*")] if path.is_file())


def _make(folder: Path, plugins: list[Path]) -> None:
    lib = _mindspore_lib()
    core = lib / "libmindspore_core.so"
    system = [Path(path) for path in re.findall(r"=> (/\S+)", _output("ldd", core))]
    others = [*lib.glob("*.so*"), *(lib / "plugin/cpu").glob("*.so*"), *system]
    wanted = _symbols("--undefined-only", plugins)
    known = _symbols("--defined-only", [*plugins, *others])
    looked_up = set().union(*(_looked_up(path.read_bytes()) for path in plugins))
    names = sorted(
        name for name in (wanted | looked_up) - known - _OWN
        if not name.startswith(_OF_THE_COMPILER)
    )  # fmt: skip
    (folder / "lib64").mkdir(parents=True)
    (folder / "opp").mkdir()
    for package, text in _PACKAGES.items():
        (folder / "python" / package).parent.mkdir(parents=True, exist_ok=True)
        (folder / "python" / package).write_text(text, encoding="utf-8")
    library = _compile(folder, names)
    linked = set(re.findall(r"NEEDED.*\[(.*)\]", _output("readelf", "-d", *plugins)))
    here = {path.name for path in [*plugins, *others, *lib.rglob("*.so*")]} | _of_the_system()
    for name in sorted(linked - here | {f"lib{one}.so" for one in _OPENED}):
        if not name.startswith(("ld-linux", "_c_")) and name != library.name:
            (folder / "lib64" / name).symlink_to(library.name)


def _compile(folder: Path, names: list[str]) -> Path:
    """One library with all the functions."""
    instructions = _INSTRUCTIONS[platform.machine()]
    lines = [line for name in names for line in (f".globl {name}", f".type {name}, %function", f"{name}:")]
    text = "\n".join([".text", *lines, instructions, '.section .note.GNU-stack, "", %progbits', ""])
    (folder / "all.s").write_text(text.replace("%function", "@function").replace("%progbits", "@progbits"))
    for name, code in (("own.cc", _CODE), ("waiting.cc", _WAITING)):
        (folder / name).write_text(code, encoding="utf-8")
    library = folder / "lib64/libascendcl.so"
    _link(library, folder / "all.s", folder / "own.cc")
    _link(folder / WAITING, folder / "waiting.cc")
    return library


def _link(library: Path, *sources: Path) -> None:
    # MindSpore's wheels have the string type of before C++11.
    command = ["g++", "-D_GLIBCXX_USE_CXX11_ABI=0", "-shared", "-fPIC", "-o", library, *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"the stand-ins of CANN don't compile: {(done.stderr.strip() or '?').splitlines()[0]}")


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _symbols(kind: str, paths: Iterable[Path]) -> set[str]:
    """Names of the functions and data that libraries want, or have."""
    rows = (line.split() for line in _output("nm", "-D", kind, *paths).splitlines())
    return {row[-1].split("@")[0] for row in rows if len(row) > 1 and row[-2] not in "wv"}


def _looked_up(data: bytes) -> set[str]:
    """Texts in a library that may be names of CANN's functions."""
    found = set()
    for prefix in _PREFIXES:
        place = data.find(b"\0" + prefix)
        while place >= 0:
            end = data.index(b"\0", place + 1)
            text = data[place + 1 : end].decode("latin-1")
            if text.isidentifier() and text.isascii():
                found.add(text)
            place = data.find(b"\0" + prefix, end)
    return found


def _of_the_system() -> set[str]:
    loader = shutil.which("ldconfig", path="/sbin:/usr/sbin:/bin:/usr/bin")
    return {line.split()[0] for line in _output(loader, "-p").splitlines() if "=>" in line} if loader else set()
