"""Files of jobs: one folder with a folder for each job, shared by the replicas that share the jobs.

What is written is written under another name and renamed, so that nobody reads half of it; what a job has is gone when
its folder is.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from service.errors import StorageFull
from service.job import is_id
from service.workspace import Workspace

_CHUNK_BYTES = 1024 * 1024
_PART = ".part"
_UPLOAD = "upload"
_RETRY_S = 30


class Spool:
    """Safe to use from several threads and processes: each file has one writer."""

    def __init__(self, folder: Path | None, min_free_bytes: int) -> None:
        """Use ``folder``, made if need be; without one a private folder, made when first needed and gone at the end."""
        self._folder = folder
        self._private: Workspace | None = None
        self._making = threading.Lock()
        self._min_free_bytes = min_free_bytes

    @property
    def folder(self) -> Path:
        """Where the jobs' folders are."""
        with self._making:  # the first jobs may come at once, and are to be in one folder
            if self._folder is None:
                self._private = Workspace()
                self._folder = self._private.path
            elif self._private is None:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return self._folder

    def require_room(self) -> None:
        """Raise StorageFull when the disk is nearly full."""
        if shutil.disk_usage(self.folder).free < self._min_free_bytes:
            raise StorageFull("no room for the job's files", limit=self._min_free_bytes, retry_after_s=_RETRY_S)

    def take(self, job_id: str, file: BinaryIO) -> tuple[int, str]:
        """Copy an upload into a new folder; returns its bytes and their SHA-256.

        Raises:
            StorageFull: it does not fit; nothing is left of it.
        """
        folder = self.folder / job_id
        digest, n_bytes = hashlib.sha256(), 0
        try:
            folder.mkdir(mode=0o700)
            with (folder / (_UPLOAD + _PART)).open("wb") as out:
                file.seek(0)
                while chunk := file.read(_CHUNK_BYTES):
                    out.write(chunk)
                    digest.update(chunk)
                    n_bytes += len(chunk)
            (folder / (_UPLOAD + _PART)).rename(folder / _UPLOAD)
        except OSError as error:
            self.remove(job_id)
            raise _full(error) from error
        return n_bytes, digest.hexdigest()

    def upload(self, job_id: str) -> BinaryIO:
        """Open a job's upload. Raises FileNotFoundError when the job was removed."""
        return (self.folder / job_id / _UPLOAD).open("rb")

    def deliver(self, job_id: str, source: Path, name: str) -> Path:
        """Move a finished file into a job's folder.

        Raises:
            FileNotFoundError: the job was removed.
            StorageFull: it does not fit.
        """
        folder = self.folder / job_id
        target, part = folder / name, folder / (name + _PART)
        try:
            try:
                source.rename(target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                shutil.copyfile(source, part)
                part.rename(target)
        except FileNotFoundError:
            raise
        except OSError as error:
            part.unlink(missing_ok=True)
            raise _full(error) from error
        return target

    def open(self, job_id: str, name: str) -> BinaryIO:
        """Open a delivered file. Raises FileNotFoundError when it is gone."""
        return (self.folder / job_id / name).open("rb")

    def drop(self, job_id: str, name: str = _UPLOAD) -> None:
        """Delete one file of a job, the upload unless named."""
        (self.folder / job_id / name).unlink(missing_ok=True)

    def remove(self, job_id: str) -> None:
        """Delete all that a job has; whoever reads it reads on."""
        if self._folder is not None:
            shutil.rmtree(self.folder / job_id, ignore_errors=True)

    def jobs(self, older_than_s: float) -> Iterator[str]:
        """Ids of folders that nothing was put into for so many seconds."""
        if self._folder is None:
            return
        for entry in os.scandir(self.folder):
            try:
                if is_id(entry.name) and time.time() - entry.stat().st_mtime >= older_than_s:
                    yield entry.name
            except FileNotFoundError:  # removed by somebody else meanwhile
                continue

    def close(self) -> None:
        """Remove the private folder, if there is one."""
        if self._private is not None:
            self._private.close()


def _full(error: OSError) -> BaseException:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("no room for the job's files", retry_after_s=_RETRY_S)
    return error
