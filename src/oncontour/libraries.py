"""Other people's libraries: is one installed, and what went wrong in our terms where one says it: is it memory, and why in a few words.

Torch and OpenVINO raise a RuntimeError where memory runs out; only its wording tells it from others. It is looked at here and nowhere else.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from oncontour.errors import ConfigError, OncontourError

EXTRAS = {
    "torch": "train",
    "lightning": "train",
    "monai": "train",
    "tensorboard": "train",
    "onnx": "onnx",
    "highdicom": "seg",
    "pyarrow": "parquet",
    "ray": "ray",
}
"""Library that not every installation has -> the extra that brings it."""

_NO_MEMORY = re.compile(
    r"(can't|cannot|could not|failed to|unable to) allocate|not enough memory|out of (shared )?memory|bad[_ ]alloc|bad allocation"
    r"|can't start new thread|resource temporarily unavailable",
    re.IGNORECASE,
)
"""torch: "DefaultCPUAllocator: can't allocate memory", "not enough memory" (Windows), "CUDA out of memory"; OpenVINO: "std::bad_alloc",
"Failed to allocate ... bytes"; loaders of shared libraries and of mapped files: "Cannot allocate memory"; and for the stack of another
thread, "can't start new thread" (Python), "Resource temporarily unavailable" (OpenVINO)."""
_ASKING = re.compile(r"please|issue|report|bug|https?://|weights_only|github|forum", re.IGNORECASE)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether ``error``, or one that led to it, says that memory ran out. Of the system's own errors their number says so, never their
    words: what a network share cannot give just now is "temporarily unavailable" as well."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        if isinstance(error, RuntimeError | ImportError) and _NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def is_installed(library: str) -> bool:
    """Whether ``library`` can be imported; it is not."""
    try:
        return find_spec(library) is not None
    except (ImportError, ValueError):
        return False


def need(library: str, what: str) -> None:
    """Raise ConfigError where ``library``, a row of EXTRAS, is not installed: ``what`` needs it, a command or an option."""
    if not is_installed(library):
        raise ConfigError(f"{what} needs {library}, which is not installed", hint=f"pip install 'oncontour[{EXTRAS[library]}]'")


def missing(error: BaseException | None) -> ConfigError | None:
    """What to tell of ``error`` where a library of EXTRAS is not installed; None where it is another error."""
    library = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if library not in EXTRAS:
        return None
    return ConfigError(f"this needs {library}, which is not installed", hint=f"pip install 'oncontour[{EXTRAS[library]}]'")


@contextmanager
def memory_told() -> Iterator[None]:
    """Whatever way a library has of saying within that memory ran out, it is a MemoryError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError("no memory left for the net") from error
        raise


def asks(sentence: str) -> bool:
    """Whether a sentence asks our user to write to somebody else, or to switch a guard off."""
    return _ASKING.search(sentence) is not None


def why(error: BaseException) -> str:
    """What a library's error says, in one line of at most 200 letters: of what OpenVINO says the last line, of others the first, without
    sentences that ask our user to write to somebody else or to switch a guard off; else the name of the error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not isinstance(error, KeyError)]
    if lines and lines[0].startswith(("Exception from", "Check '")):
        lines.reverse()
    for line in lines:
        kept = " ".join(part for part in re.split(r"(?<=[.!?])\s+", line) if not asks(part))
        if kept:
            return kept[:200]
    return type(error).__name__


def failure(what: str, error: Exception) -> str:
    """Why ``what`` failed, as a sentence: in our own words, or by the name of an unforeseen error and what is fit to be shown of it."""
    error = missing(error) or error
    if isinstance(error, OncontourError):
        return sentence(f"{what}: {error.what}", error.hint)
    if is_out_of_memory(error):
        return sentence(f"{what}: it needs more memory than there is", "close other programs or use a larger machine")
    kind, told = type(error).__name__, why(error)
    return sentence(f"{what}: {kind}" + (f" {told}" if told != kind else ""))


def sentence(what: str, hint: str = "") -> str:
    """``what`` with the way out, if there is one."""
    return what + (f". Way out: {hint}" if hint else "") + "."
