"""What images, files and people are called in a corpus: as they are, or by keyed hashes."""

import hashlib
import hmac
from dataclasses import dataclass, field

HEX_DIGITS = 16  # 64 bits: of ten million names no two collide, but for one chance in 400,000


@dataclass(frozen=True, slots=True)
class Names:
    """How a curation calls things.

    With `hashes`, names of files become HMAC-SHA256 under the key, cut to 16 hexadecimal digits.
    What a header calls a patient always does. Who has the key can find a name again; who has not
    cannot even try names out.
    """

    hashes: bool = False
    key: bytes | None = field(default=None, repr=False)

    def image(self, key: str) -> str:
        """Name an image by its key, which is its path."""
        return self._hash("image", key) if self.hashes else key

    def source(self, source: str) -> str:
        """Name a file by its path below the curated folder."""
        return self._hash("file", source) if self.hashes else source

    def subject(self, found: str) -> str:
        """Name a subject by what a file's name says."""
        return self._hash("subject", found) if self.hashes else found

    def patient(self, patient: str) -> str:
        """Name a subject by what a header says: a hash, whatever files are called."""
        return self._hash("subject", patient)

    @property
    def key_id(self) -> str | None:
        """Tell keys apart without telling them."""
        return None if self.key is None else self._hash("key", "")[:8]

    def _hash(self, kind: str, name: str) -> str:
        assert self.key is not None, "names are hashed under a key"
        message = f"{kind}\0{name}".encode("utf-8", "surrogatepass")
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()[:HEX_DIGITS]
