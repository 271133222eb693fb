#!/usr/bin/env bash
# Builds the C++ program to ascend310_infer/out/main: bash ascend310_infer/build.sh [--cpu] [--sanitize] [--portable]
# What of it needs MindSpore Lite lies beside it, in libdlrm_lite.so.
#   --cpu        fetch MindSpore Lite 2.0.0, which runs on a CPU, from PyPI (169 MB, once) and build with it
#   --sanitize   build with the address and undefined behaviour sanitizers, to ascend310_infer/out/main_sanitized
#   --portable   build for any processor of this kind, not with all that this machine's can do
# Without --cpu, LITE_HOME must name the folder of a MindSpore Lite package for Ascend, unpacked, with headers in
# runtime/include/api or, after release 2.7.1, runtime/include/cxx_api. Runs wait for each other.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P) # one place, so one build, also where links lead here
. "$here/../scripts/common.sh"

lite_version=2.0.0
wheel=mindspore_lite-$lite_version-cp37-cp37m-manylinux1_x86_64.whl
wheel_sha256=199cd0605cc985b88eddb273db9dfe9000a585ba10ca2292b6b36ebfff07b3ec

show_help "$@"
cpu=false sanitize=OFF native=ON name=main library=libdlrm_lite.so
for word in "$@"; do
    case $word in
        --cpu) cpu=true ;;
        --sanitize) sanitize=ON name=main_sanitized library=libdlrm_lite_sanitized.so ;;
        --portable) native=OFF ;;
        *) fail "unknown option $word; build.sh takes --cpu, --sanitize and --portable" ;;
    esac
done
for tool in cmake flock "${CXX:-g++}"; do
    command -v "$tool" >/dev/null || fail "$tool is missing: install it, as with apt-get install cmake g++ zlib1g-dev util-linux"
done

# Any Python can fetch the wheel, which is of Python 3.7, and unpack it: only its C++ headers and libraries are used.
fetch_lite() {
    local python
    [ "$(uname -m)" = x86_64 ] || fail "the wheel of MindSpore Lite $lite_version is for x86_64, this is $(uname -m): set LITE_HOME"
    python=$(python_command)
    "$python" -m pip --version >/dev/null 2>&1 ||
        fail "$python has no pip, which fetches mindspore-lite $lite_version: set PYTHON to one that has it, or set LITE_HOME"
    rm -rf "$lite.writing"
    telling "fetching MindSpore Lite" "$python" -m pip --disable-pip-version-check download --quiet --no-deps --only-binary=:all: --implementation cp --python-version 37 --abi cp37m \
        --platform manylinux1_x86_64 --dest "$lite.writing" "mindspore-lite==$lite_version" ||
        fail "mindspore-lite $lite_version can't be fetched from PyPI: check the network, or set LITE_HOME"
    echo "$wheel_sha256  $lite.writing/$wheel" | sha256sum --check --quiet ||
        fail "$wheel is not the file that it was: fetch it again"
    "$python" -m zipfile -e "$lite.writing/$wheel" "$lite.writing"
    rm "$lite.writing/$wheel"
    mv "$lite.writing" "$lite"
}

make_folder "$root/build"
exec 9>"$root/build/ascend310_infer.lock"
flock 9

if $cpu; then
    lite=$root/build/mindspore_lite-$lite_version
    if [ ! -d "$lite" ]; then
        echo "fetching MindSpore Lite $lite_version from PyPI, 169 MB, once"
        fetch_lite
    fi
    LITE_HOME=$lite/mindspore_lite
fi
[ -n "${LITE_HOME:-}" ] || fail "LITE_HOME is not set: name the folder of MindSpore Lite for Ascend, or give --cpu"
[ -d "$LITE_HOME" ] || fail "LITE_HOME $LITE_HOME is not a folder: name that of MindSpore Lite, unpacked"

build=$root/build/ascend310_infer/$name
make_folder "$build"
# What is built, by which settings, stands in a file that is as old as the sources were looked at.
settings="$here $LITE_HOME $sanitize $native"
if [ "$(cat "$build/built" 2>/dev/null)" != "$settings" ] || [ ! -f "$build/main" ] || [ ! -f "$build/$library" ] ||
    [ -n "$(find -L "$here/src" "$here/CMakeLists.txt" "$LITE_HOME" -newer "$build/built" -print -quit)" ]; then
    echo "building the C++ program, which takes a minute"
    # A cache that belongs to another place, since the repository was moved or copied, would be refused.
    cache=$build/CMakeCache.txt
    if [[ -f $cache ]] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$here" "$cache"; then rm -rf "$build" && mkdir -p "$build"; fi
    echo "$settings" >"$build/building"
    cmake -S "$here" -B "$build" -DLITE_HOME="$LITE_HOME" -DSANITIZE="$sanitize" -DNATIVE="$native" >"$build/cmake.log" 2>&1 ||
        fail "cmake failed: $(grep -A3 'CMake Error' "$build/cmake.log" | tr -s '\n ' ' ' || true) (see $build/cmake.log)"
    rm -f "$build/built"
    compile() { cmake --build "$build" --parallel 2 >"$build/build.log" 2>&1; }
    telling "building the C++ program" compile || {
        grep -E 'error|warning' "$build/build.log" >&2 || tail -5 "$build/build.log" >&2
        fail "the program can't be built (see $build/build.log)"
    }
    mv "$build/building" "$build/built"
fi
make_folder "$here/out"
what=unchanged
# put BUILT FILE: in its place at once, for a run may be at work there.
put() {
    if cmp -s "$build/$1" "$here/out/$2"; then return; fi
    cp "$build/$1" "$here/out/$2.tmp"
    mv "$here/out/$2.tmp" "$here/out/$2"
    what=built
}
put "$library" "$library"
put main "$name"
echo "$what $here/out/$name"
