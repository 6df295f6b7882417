"""Series of DICOM as values: what its pictures have in common, and where each slice lies.

Positions are in the patient's space of DICOM, LPS, in mm: to the left, to the back, up.
"""

from dataclasses import dataclass

Vector = tuple[float, float, float]
Reference = tuple[str, int | None]  # an image by its UID, and its frame from 0 if that is said


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What all pictures of a series have in common."""

    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    is_signed: bool
    modality: str | None  # (0008,0060), if it is one of the standard's

    @property
    def n_colours(self) -> int:
        """1 for grey, 3 for colours."""
        return 1 if self.photometric.startswith("MONOCHROME") else 3

    @property
    def is_inverted(self) -> bool:
        """Whether large values are dark."""
        return self.photometric == "MONOCHROME1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One picture of a file, and where its pixels lie."""

    path: str  # of its file, below the folder; goes into no output
    frame: int  # of its file, from 0
    n_frames: int  # of its file
    sop_uid: str
    number: tuple[int, int]  # of the instance and the frame: the order where nothing else says it
    position: Vector | None  # of the centre of the first pixel
    along_x: Vector | None  # the direction in which columns are counted
    along_y: Vector | None
    spacing_yx_mm: tuple[float, float] | None
    thickness_mm: float | None
    slope: float = 1.0
    intercept: float = 0.0
    padding: tuple[int, int] | None = None  # stored values that show nothing, both inclusive
    window: tuple[float, float] | None = None  # values shown as black and white
    marks: tuple[float | None, ...] = ()  # time, echo ...: what tells pictures of one place apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Pictures that belong together, in order: a volume if `affine` is there, else frames.

    Affine and slices speak of voxels (column, row, slice).
    """

    uid: str  # goes into no output
    frame_of_reference: str | None
    kind: Kind
    slices: tuple[Slice, ...]
    affine: tuple[float, ...] | None  # 4 x 4, row-major, to mm in RAS
    patient: str | None  # goes into no output
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of slices, rows and columns."""
        return len(self.slices), self.kind.rows, self.kind.columns


@dataclass(frozen=True, slots=True)
class DicomMask:
    """A file of masks; `is_shared`: several series have their part in it."""

    path: str  # below the folder; goes into no output
    form: str  # seg or rtstruct
    is_shared: bool = False
