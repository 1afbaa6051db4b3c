"""The state of a fit in a directory, from which an interrupted fit goes on to the same bits."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlefast._files import BROKEN_FILE, one_line, open_atomically, write_npz
from mlefast.estimators.machines import machine_of
from mlefast.estimators.objective import FloatArray

_STATE, _EVALUATIONS = "checkpoint.npz", "evaluations.bin"
_VERSION = 1
_SAMPLED_ROWS = 1000  # that tell data sets apart; reading more than memory holds would cost more than it tells
_RECORD = struct.Struct("<IIdd")  # checksums of x and of the gradient; the objective, the largest true slope


class CheckpointError(ValueError):
    """A checkpoint that cannot be continued, or that a new fit would overwrite."""


class SavedState(NamedTuple):
    """What :meth:`Checkpoint.save` was given."""

    arrays: dict[str, Any]
    state: dict[str, Any]


class Checkpoint:
    """A directory with the state of one fit.

    Parameters
    ----------
    directory : str or path
        Is made if it is not there.
    resume : bool
        Whether a fit that is there is continued; without it, the directory must hold none.
    fingerprint : mapping
        What a fit depends on: a checkpoint of a fit that differs in any of it is refused.

    Attributes
    ----------
    saved : SavedState or None
        What is there to go on from.
    common : dict
        Kept with every state; what JSON can hold.
    """

    def __init__(self, directory: str | os.PathLike[str], *, resume: bool, fingerprint: Mapping[str, Any]) -> None:
        self.directory = Path(directory)
        self.common: dict[str, Any] = {}
        self._fingerprint = json.loads(json.dumps(dict(fingerprint), default=repr))
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"checkpoint: cannot make {self.directory}: {one_line(error)}") from error
        self.saved = self._load() if self._path.exists() else None
        if self.saved is not None and not resume:
            raise CheckpointError(
                f"checkpoint: {self.directory} holds the state of a fit; accepted: resume=True (--resume) to continue "
                "it, or another directory"
            )

    @property
    def _path(self) -> Path:
        return self.directory / _STATE

    def save(self, arrays: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Replace the saved state, as a whole or not at all.

        Parameters
        ----------
        arrays : mapping of str to ndarray
        state : mapping
            What JSON can hold.
        """
        header = json.dumps(
            {"version": _VERSION, "fingerprint": self._fingerprint, "common": self.common, "state": dict(state)}
        )
        buffer = io.BytesIO()
        write_npz(buffer, {"header": np.array(header), **arrays})
        with open_atomically(self._path) as file:
            file.write(buffer.getbuffer())

    def _load(self) -> SavedState:
        try:
            with self._path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                header = json.loads(str(archive["header"]))
                arrays = {name: archive[name] for name in archive.files if name != "header"}
            version, fingerprint = header["version"], dict(header["fingerprint"])
            self.common, state = dict(header["common"]), dict(header["state"])
        except BROKEN_FILE as error:
            raise CheckpointError(f"checkpoint: cannot read {self._path}: {one_line(error)}") from error
        if version != _VERSION:
            raise CheckpointError(f"checkpoint: {self._path} is of version {version}; accepted: {_VERSION}")
        for name in fingerprint.keys() | self._fingerprint.keys():
            was, now = fingerprint.get(name), self._fingerprint.get(name)
            if was != now:
                raise CheckpointError(
                    f"checkpoint: {self._path} is of a fit with {name}={_short(was)}, received {_short(now)}; "
                    "accepted: the data and options of that fit, or another directory"
                )
        return SavedState(arrays, state)

    def evaluations(self, size: int) -> EvaluationLog:
        """Open the log of a deterministic minimiser's evaluations, for an objective of `size` parameters."""
        return EvaluationLog(self.directory / _EVALUATIONS, size, keep=self.saved is not None)


def _checksum(array: FloatArray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)


class EvaluationLog:
    """Objectives and gradients in the order in which a minimiser asked for them.

    What a deterministic minimiser does next depends on these alone: fed with them again, it is where it was, whatever
    its memory looks like inside. Records are appended and flushed to the disk; the end of the file that was being
    written when the process was killed is cut off.
    """

    def __init__(self, path: Path, size: int, *, keep: bool) -> None:
        self._length = _RECORD.size + 8 * size
        self._file = path.open("r+b" if keep and path.exists() else "w+b")

    def replay(self, x: FloatArray) -> tuple[float, FloatArray, float] | None:
        """Return what the next evaluation gave, or None after the last.

        Raises
        ------
        CheckpointError
            If it was at another point: then this is not the minimiser (or not its version) that the log is of.
        """
        start = self._file.tell()
        record = self._file.read(self._length)
        if len(record) == self._length:
            x_sum, gradient_sum, value, slope = _RECORD.unpack_from(record)
            gradient = np.frombuffer(record, np.float64, offset=_RECORD.size).copy()
            if _checksum(gradient) == gradient_sum:
                if _checksum(x) != x_sum:
                    raise CheckpointError(
                        f"checkpoint: evaluation {start // self._length} of {self._file.name} was at another point; "
                        "accepted: the versions of SciPy and mlefast that it was written with"
                    )
                return value, gradient, slope
        self._file.seek(start)
        self._file.truncate()
        return None

    def append(self, x: FloatArray, value: float, gradient: FloatArray, slope: float) -> None:
        """Write one more, at x."""
        self._file.write(_RECORD.pack(_checksum(x), _checksum(gradient), value, slope) + gradient.tobytes())

    def flush(self) -> None:
        """Bring everything to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def data_fingerprint(X: Any, y: Any, weight: Any) -> str:
    """Tell data sets apart: by shape and dtype, all labels and weights, and features of up to a thousand samples.

    All are on one machine, which does not matter.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((X.shape, X.dtype.str)).encode())
    rows = np.unique(np.linspace(0, X.shape[0] - 1, min(X.shape[0], _SAMPLED_ROWS)).astype(np.int64))
    machine = machine_of(X)
    some = machine.to_host(X[machine.asarray(rows)])
    parts = [some] if isinstance(some, np.ndarray) else [some.data, some.indices, some.indptr]
    for part in (*parts, machine.to_host(y), *(() if weight is None else (machine.to_host(weight),))):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
