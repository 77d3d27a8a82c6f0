"""The message that the command line prints for an error, and its exit code."""

from __future__ import annotations

import errno
import os

from unhot.errors import InputError, UnhotError

FAILED, UNUSABLE, UNMET = 1, 2, 3  # exit codes; the last is of a --require or a check that is not met

# what the user can do about an error of the system
ADVICE = {
    errno.ENOENT: "Check the path.",
    errno.ENOTDIR: "Check the path.",
    errno.EISDIR: "Give a file, not a folder.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ELOOP: "Its links lead round in a circle; give the file itself.",
    errno.EACCES: "Check its permissions.",
    errno.EPERM: "Check its permissions.",
    errno.EROFS: "Choose a place that can be written to.",
    errno.EBUSY: "Choose another place.",
    errno.EEXIST: "Choose another name.",
    errno.ENOTEMPTY: "Choose another name.",
    errno.ENOSPC: "Free some space and run again.",
    errno.EDQUOT: "Free some of your quota and run again.",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f), or choose another file system.",
    errno.EMFILE: "Raise the limit on open files (ulimit -n).",
}
MEMORY = "There is not enough memory. Use fewer or smaller images, a smaller model, or a machine with more."
NESTED = "The input nests too deeply to be read."


def described(error: Exception) -> tuple[str, int]:
    """Return the message of an error, one sentence a line, and the exit code."""
    if isinstance(error, UnhotError):
        return error.command_line or str(error), UNUSABLE if isinstance(error, InputError) else FAILED
    if _out_of_memory(error):
        return MEMORY, FAILED
    if isinstance(error, RecursionError):
        return NESTED, FAILED
    if isinstance(error, OSError) and error.errno is not None:
        return _of_the_system(error)
    what = ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split()).rstrip(".")]))
    return f"unhot failed unexpectedly: {what}. Run again with --traceback, and report what it says.", FAILED


def _of_the_system(error: OSError) -> tuple[str, int]:
    paths = [os.fsdecode(p) for p in (error.filename, error.filename2) if isinstance(p, str | bytes | os.PathLike)]
    what = (error.strerror or os.strerror(error.errno or 0)).rstrip(".")
    message = f"{' -> '.join(paths) or 'The system says'}: {what}."
    advice = ADVICE.get(error.errno or 0)
    return (message, FAILED) if advice is None else (f"{message} {advice}", UNUSABLE)


def _out_of_memory(error: Exception) -> bool:
    """Tell whether memory ran out: torch has errors of its own, and libraries that find no room cannot be loaded."""
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, ImportError) and "failed to map segment" in str(error))
        or (
            isinstance(error, RuntimeError)
            and (type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error))
        )
    )
