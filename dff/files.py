"""Write files whole or not at all, and never over what is not known to be the program's own.

- :func:`write_file`: a file of its own, at a place where nothing is.
- :class:`Manifest` (:mod:`dff.manifest`): the files of a folder, which may be replaced later.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dff.errors import OutputError

__all__ = [
    "Content",
    "aside",
    "csv_text",
    "digest_of",
    "fill",
    "is_regular",
    "json_text",
    "make_folder",
    "put",
    "write_file",
]

Content = bytes | str | Callable[[Any], object]
"""What a file shall hold: bytes, text (UTF-8), or a function that writes to the open file."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def make_folder(path: str | Path) -> Path:
    """Create a folder, its parents included, and return it.

    Raises:
        OutputError: it cannot be created, or cannot be written to.
    """
    folder = Path(path)
    try:
        os.makedirs(folder, exist_ok=True)
    except (OSError, ValueError, RecursionError) as error:
        raise explained(folder, error) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write into {str(folder)!r}: permission denied; choose another")
    return folder


def write_file(path: str | Path, content: Content, *, replace: bool = False) -> Path:
    """Write a file aside and move it into place, so that it appears whole or not at all.

    Args:
        path: where; its folder exists.
        content: bytes, text (UTF-8), or a function that writes to the open binary file.
        replace: what is there is known to be the program's own, and is replaced. Else anything
            that is there is left alone, and the file is not written.

    Raises:
        OutputError: something is there, the disk is full, the folder is not writable, ...;
            nothing stays behind.
    """
    path = Path(path)
    with aside(path) as temporary:
        fill(temporary, content)
        put(temporary, path, replace=replace)
    return path


@contextmanager
def aside(path: Path, *, folder: Path | None = None, owner: str = "") -> Iterator[Path]:
    """Yield a new, empty file to be filled and :func:`put` at `path`; it is removed if it stays.

    Args:
        path: what the file is for; gives its ending.
        folder: where it lies until then; None is beside `path`.
        owner: becomes part of its name, so that the owner can prove later that it is its own.

    Raises:
        OutputError: any OSError meanwhile, explained.
    """
    name = f".dff-{owner or 'new'}-{secrets.token_hex(8)}{path.suffix[:16]}"
    temporary = (folder or path.parent) / name
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
    except OutputError:
        raise
    except (OSError, ValueError) as error:
        raise explained(path, error) from None
    finally:
        with contextlib.suppress(OSError, ValueError):
            os.unlink(temporary)


def fill(path: Path, content: Content) -> str:
    """Write the content of a file to the disk itself, and return its digest."""
    data = content.encode() if isinstance(content, str) else content
    with path.open("wb") as file:
        if callable(data):
            data(file)
        else:
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return digest_of(path if callable(data) else io.BytesIO(data))


def json_text(value: Any, *, ascii_only: bool = False) -> str:
    """Return a value as JSON, as it is written to files and printed.

    Numbers that JSON does not have (NaN and infinities) become null. Half characters (lone
    surrogates, of file names that are not UTF-8) stand as escapes; with `ascii_only`, all others
    beyond ASCII do, too.
    """
    text = json.dumps(_finite(value), indent=2, ensure_ascii=ascii_only, allow_nan=False) + "\n"
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as CSV (RFC 4180, but for "\\n" at the end of lines); None is an empty cell.

    Text that a spreadsheet would take for a formula gets an apostrophe before it, as there.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([f"'{v}" if isinstance(v, str) and v[:1] in FORMULA else v for v in row])
    return re.sub("[\ud800-\udfff]", "\ufffd", text.getvalue())


def _finite(value: Any) -> Any:
    """Return plain data with None in place of NaN and infinities."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def put(temporary: Path, path: Path, *, replace: bool) -> None:
    """Move a filled file to its place; only a regular file is ever replaced.

    Raises:
        OutputError: something else is there, or anything where `replace` is false.
    """
    if replace and (is_regular(path) or not os.path.lexists(path)):
        os.replace(temporary, path)
        return
    if os.path.lexists(path):
        raise taken(path)
    try:
        os.link(temporary, path)  # unlike a rename, this never replaces what has come meanwhile
    except FileExistsError:
        raise taken(path) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(temporary, path)  # a file system without links


def taken(path: Path) -> OutputError:
    """Return the error for a place that holds something which is not the program's."""
    what = "exists, and this program did not write it, or it was changed since"
    if os.path.lexists(path) and not is_regular(path):
        what = "is not a regular file"
    return OutputError(f"{str(path)!r} {what}: move it away, or choose another --out")


def is_regular(path: str | Path) -> bool:
    """Return whether a path is a regular file itself: no link, folder, pipe or device."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def digest_of(path: str | Path | IO[bytes]) -> str:
    """Return the SHA-256 (64 hexadecimal digits) of a file's content, from where it stands."""
    digest = hashlib.sha256()
    with contextlib.ExitStack() as stack:
        file = path if hasattr(path, "read") else stack.enter_context(open(path, "rb"))
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def explained(path: Path, error: Exception) -> OutputError:
    """Return the error of the operating system, with what to do about it."""
    number = getattr(error, "errno", None) or 0
    advice = {
        errno.ENOSPC: "; free some space, or choose another folder with --out",
        errno.EDQUOT: "; free some space, or choose another folder with --out",
        errno.ENOTDIR: "; a part of the path is a file: choose another folder",
        errno.EEXIST: "; it is a file: choose another folder",
        errno.ENOENT: "; its folder is gone, or was never there",
        errno.ENAMETOOLONG: "; choose a shorter name",
    }.get(number, "; choose another folder")
    reason = getattr(error, "strerror", None) or str(error)
    shown = str(path) if len(str(path)) <= 300 else f"{str(path)[:120]}…{str(path)[-120:]}"
    return OutputError(f"cannot write {shown!r}: {reason}{advice}")
