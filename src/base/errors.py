"""The one exception for what a user can cause, and its one-line report at the command line."""

import errno
import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.base.stops import STOPPED, interrupt

_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.ENOTDIR: "a file stands where a folder is needed: name another place",
    errno.EEXIST: "a file stands where a folder is needed: name another place",
    errno.EISDIR: "a folder stands where a file is needed: name another place",
}

# Garbage that only a collection finds is seldom here, and MindSpore's import makes half a million objects that stay:
# as often as Python has it (700, 10, 10), going over them takes a quarter of the processor time of a short training.
_COLLECTIONS = 20_000, 20, 50

NOTHING_TO_DO = "nothing to do: "  # begins the line of an AlreadyDone


class InputError(ValueError):
    """Input that a user can mend: the message names the thing, the value, the rule and the remedy."""


class AlreadyDone(InputError):
    """What a command is to make is there, made by the same command before: nothing is wrong, and nothing to do."""


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Errors of the file system within, such as a full disk's, name the file even where the system did not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), error.filename or str(path)) from None


def run(main: Callable[[Sequence[str]], int | None], goes_on: bool = False, usage: str = "") -> None:
    """Run a program's `main(argv)` and exit: 0 if it went well, or all was there already, 2 with one line on stderr if
    the input was at fault.

    Only `InputError` and errors of the file system become one line; anything else is a defect of this
    code and keeps its traceback. Where nobody reads its lines any more, as behind `| head`, it ends without one.

    Args:
        main: the program.
        goes_on: whether the same command goes on with what a stopped one had finished.
        usage: what -h and --help print, of a program that does not answer them itself.
    """
    interrupt()
    gc.set_threshold(*_COLLECTIONS)
    if _spare_what_stays not in gc.callbacks:
        gc.callbacks.append(_spare_what_stays)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files and columns may be no text of the terminal's
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if asked := bool(usage and {"-h", "--help"} & set(sys.argv[1:])):
            print(f"usage: {usage.strip()}")
        code = 0 if asked else main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would tell of it at its end
        sys.exit(128 + signal.SIGPIPE)
    except AlreadyDone as done:
        print(f"{NOTHING_TO_DO}{' '.join(str(done).split())}", flush=True)
        code = 0
    except InputError as error:
        sys.exit(_report(" ".join(str(error).split())))
    except OSError as error:
        what = error.strerror or str(error) or type(error).__name__
        remedy = _REMEDIES.get(error.errno or 0, "check that it exists and may be used")
        sys.exit(_report(f"{error.filename or 'a file'}: {what}; {remedy}, then start again"))
    except KeyboardInterrupt:
        kept = "; what was saved is kept, and the same command goes on from there" if goes_on else ""
        print(f"{STOPPED}{kept}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)  # MindSpore's clean-up can go round for ever where a graph was interrupted
    finally:
        gc.freeze()  # or Python goes over all objects again to end
    sys.exit(code or 0)


def _spare_what_stays(phase: str, details: dict[str, Any]) -> None:
    """Let collections pass over all that is there when the first full one begins: MindSpore makes one a compilation."""
    if phase == "start" and details["generation"] == 2:
        gc.callbacks.remove(_spare_what_stays)
        gc.freeze()


def _report(line: str) -> int:
    print(f"error: {line}", file=sys.stderr)
    return 2
