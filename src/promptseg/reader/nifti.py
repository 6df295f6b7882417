"""NIfTI volumes."""

from pathlib import Path

import numpy as np

from promptseg.errors import DataError
from promptseg.reader.image import unreadable
from promptseg.reader.volume import Volume, check_bytes, check_grid, check_numbers, oriented

_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI file.

    An identity affine without units is what software writes when it knows nothing: then there is
    no spacing. Other affines without units are in millimetres, as all tools read them.

    Raises
    ------
    DataError
        It is damaged, has not three axes, or does not say how it lies in the patient.
    """
    import nibabel

    try:
        image = nibabel.load(path)
        units = image.header.get_xyzt_units()[0]
        codes = (int(image.header["sform_code"]), int(image.header["qform_code"]))
        check_grid(image.shape, image.affine)
        check_bytes(image.shape, image.get_data_dtype().itemsize)
        if not any(codes):
            raise DataError(
                "its header does not say how it lies in the patient (no sform, no qform)"
            )
        stored = np.asanyarray(image.dataobj.get_unscaled()).reshape(image.shape[:3])
        slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    except DataError:
        raise
    except Exception as error:  # damaged and hostile files make decoders raise anything
        raise unreadable(path, error) from error
    check_numbers(stored)
    is_default = units == "unknown" and np.array_equal(image.affine, np.eye(4))
    scale = np.diag([_MM[units]] * 3 + [1.0])
    affine = scale @ image.affine.astype(np.float64)
    return oriented(Volume(stored, affine, not is_default, slope, intercept))
