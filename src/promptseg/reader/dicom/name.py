"""What stands for the names of DICOM: UIDs hold institutions and dates, paths hold patients."""

import hashlib


def pseudonym(text: str) -> str:
    """Give the name under which a UID or a path goes into outputs: 12 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def file_name(source: str) -> str:
    """Name a file in a list of what was left out."""
    return f"file-{pseudonym(source)}"
