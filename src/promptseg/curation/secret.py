"""The key under which names are hashed: a file of one's own, never in a corpus."""

import os
import secrets
from pathlib import Path

from promptseg.errors import DataError

LEAST_BYTES = 16
ADVICE = "Give a file of at least 16 random bytes, or the name of one to be made"


def read_key(path: Path) -> bytes:
    """Read the key; where there is no file yet, make one that only its owner can read.

    Raises
    ------
    DataError
        It cannot be read or made, or is too short to be a secret.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            only_new = os.O_CREAT | os.O_EXCL | os.O_WRONLY
            with os.fdopen(os.open(path, only_new, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
        key = path.read_bytes()
    except OSError as error:
        raise DataError(f"The key of names cannot be used ({error.strerror}). {ADVICE}.") from error
    if len(key) < LEAST_BYTES:
        raise DataError(f"The key of names has {len(key)} bytes. {ADVICE}.")
    return key
