"""Downloads that resume where they stopped, and files taken out of a wheel that is never imported."""

import hashlib
import http.client
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from recsparse.errors import FetchError

Progress = Callable[[str, int, int | None], None]
"""Called with the stage, how much is done, and the total where it is known."""

CONNECT_SECONDS = 8.0
ATTEMPTS = 5
CHUNK = 1 << 20


def silent(stage: str, done: int, total: int | None) -> None:
    """Report progress to nobody."""


def digest(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: Path, sha256: str | None) -> None:
    """Compare a file with its checksum.

    Raises:
        FetchError: they differ.
    """
    if sha256 is not None and (found := digest(path)) != sha256:
        raise FetchError(
            f"{path.name} has SHA-256 {found}, its dataset card says {sha256}; it was cut short or changed at "
            "its origin."
        )


def download(
    url: str, path: Path, *, sha256: str | None = None, timeout: float = CONNECT_SECONDS, progress: Progress = silent
) -> Path:
    """Download ``url`` to ``path``; bytes of an earlier attempt, of this process or a killed one, are kept.

    The bytes gather in ``path`` + ``.part``. They are continued with an HTTP range request made conditional on the
    server's validator (``If-Range``), so that a file which changed in between starts anew and two versions never mix.

    Args:
        url: an ``http`` or ``https`` address.
        path: where the file goes, once complete and verified.
        sha256: its checksum; None where it is not known.
        timeout: seconds to wait for a connection and for each piece of data.
        progress: told ``download <file>``, the bytes so far and the bytes in all.

    Raises:
        FetchError: the address cannot be reached, the connection keeps breaking, or the checksum does not match.
    """
    if not url.startswith(("http://", "https://")):
        raise FetchError(f"{url} is neither an http nor an https address.")
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            _continue(url, part, timeout, progress)
            break
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                part.unlink()
                continue
            raise FetchError(f"{url} answered {error.code} {error.reason}.") from error
        except (OSError, http.client.HTTPException) as error:
            after = part.stat().st_size if part.exists() else 0
            if attempt + 1 == ATTEMPTS or after == before:
                reason = getattr(error, "reason", None) or error
                raise FetchError(f"{url} could not be downloaded: {reason}.") from error
            time.sleep(0.2 * 2**attempt)
    else:
        raise FetchError(f"{url} could not be downloaded: the server keeps refusing the range it was asked for.")
    try:
        verify(part, sha256)
    except FetchError:
        part.unlink()
        raise
    finally:
        _note(part).unlink(missing_ok=True)
    part.replace(path)
    return path


def _note(part: Path) -> Path:
    """Where the validator of a partial download is kept."""
    return part.with_name(part.name + ".json")


def _continue(url: str, part: Path, timeout: float, progress: Progress) -> None:
    """Ask for what is missing and append it to ``part``."""
    note = _note(part)
    known = json.loads(note.read_text()) if note.exists() and part.exists() else {}
    done = part.stat().st_size if known.get("url") == url and known.get("validator") else 0
    request = urllib.request.Request(url, headers={"User-Agent": "recsparse", "Accept-Encoding": "identity"})  # noqa: S310
    if done:
        request.add_header("Range", f"bytes={done}-")
        request.add_header("If-Range", known["validator"])
    with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 (http and https only, checked above)
        if answer.status != http.client.PARTIAL_CONTENT:
            done = 0
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            raise http.client.HTTPException("the server sent another range than it was asked for")
        length = answer.headers.get("Content-Length")
        total = done + int(length) if length else None
        note.write_text(json.dumps({"url": url, "validator": _validator(answer.headers)}))
        with part.open("ab" if done else "wb", buffering=0) as file:
            while chunk := answer.read1(CHUNK):  # what has come is kept, however slow the rest
                file.write(chunk)
                done += len(chunk)
                progress(f"download {part.name.removesuffix('.part')}", done, total)
        if total is not None and done < total:
            raise http.client.IncompleteRead(b"", total - done)


def _validator(headers: http.client.HTTPMessage) -> str | None:
    """Give what identifies this version of the file: a strong ETag, else the time it was last changed."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def download_wheel(requirement: str, directory: Path, *, seconds: float = 300.0) -> Path:
    """Have pip download one wheel, without its dependencies; nothing of it is installed or run.

    Raises:
        FetchError: pip is not there, or the wheel cannot be had.
    """
    with tempfile.TemporaryDirectory(dir=directory) as work:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", work, requirement]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds)  # noqa: S603
        except subprocess.CalledProcessError as error:
            reason = (error.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise FetchError(f"pip could not download {requirement}: {reason}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FetchError(f"pip could not download {requirement}: {error}.") from error
        wheels = list(Path(work).glob("*.whl"))
        if len(wheels) != 1:
            raise FetchError(f"pip downloaded {len(wheels)} wheels for {requirement}, not one.")
        return wheels[0].replace(directory / wheels[0].name)
