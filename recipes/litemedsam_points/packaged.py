"""Images without masks that packages carry, pinned by hash: what a teacher labels for training.

Where each image's terms are stated is in ATTRIBUTION.md.
"""

from promptseg.demo import LINUX
from promptseg.weights import WheelFile

_PYDICOM = "pydicom-data==1.0.0"
_SKIMAGE = "scikit-image==0.26.0"


def _dicom(name: str, sha256: str) -> WheelFile:
    return WheelFile(_PYDICOM, f"data_store/data/{name}.dcm", sha256)


def _skimage(name: str, sha256: str) -> WheelFile:
    return WheelFile(_SKIMAGE, f"skimage/data/{name}", sha256, LINUX)


# name: modality, licence, files
PACKAGED: dict[str, tuple[str, str, tuple[WheelFile, ...]]] = {
    "dicom_ct": (
        "CT",
        "MIT",
        (
            _dicom("693_UNCR", "cc4cdd599231922ecf63de2ddacf03d51c4588805c9154c2eef1ff49c23b32be"),
            _dicom(
                "bad_sequence", "0677915e5c3e8c98498eb3d1b726ccf38ba0d8ada657c8ca7fe1b8b9b5890f4f"
            ),
            _dicom(
                "explicit_VR-UN", "28c4a61022d7dbebec97e2f1bbdad0ed097bee2c62727c26a3f3720248c9c6e7"
            ),
        ),
    ),
    "dicom_mri": (
        "MRI",
        "MIT",
        (
            _dicom(
                "MR-SIEMENS-DICOM-WithOverlays",
                "094faf56c63bff84c30567e29de0c67d7c5a8ae05cf880ac12175491b6b645d2",
            ),
            _dicom("MR2_UNCR", "c14c7f0c6e25bd4dfbb822fe264e540fc7142bf1c9d15d4c652ec8f5f97fa9e8"),
        ),
    ),
    "dicom_xray": (
        "X-ray",
        "MIT",
        (
            _dicom("RG1_UNCR", "946f28f48b9fbf360196a9b835c8fce83b0c654bf85a5107663c8a61df02e498"),
            _dicom("RG3_UNCR", "6babfc42dd404213e1758d6dbb93648c248783cc23f593103fff4295c3374dfb"),
        ),
    ),
    "dicom_ultrasound": (
        "Ultrasound",
        "MIT",
        (
            _dicom("US1_UNCR", "af5a66e40cd49d15dfbf7b78c850eba0662bdc7339339c3fa13f123a57e812cb"),
            _dicom(
                "gdcm-US-ALOKA-16",
                "f1a2d5f7c4ffe87dc589b12738084099fe44a436f6980f5d7e96a026ad356d65",
            ),
            _dicom(
                "JPGLosslessP14SV1_1s_1f_8b",
                "1978d4f058e52d3239fae33f261b3dc74605fdd9f89031fffd57bea6218d0dbf",
            ),
            _dicom(
                "color3d_jpeg_baseline",
                "c8798b8abf8ae0a18e8c9952e7c7f75f3cc8465234b1b63f9e3ba3bebb9d5625",
            ),
        ),
    ),
    "fundus": (
        "Fundus",
        "CC0-1.0",
        (
            _skimage(
                "retina.jpg", "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6"
            ),
            _skimage(
                "microaneurysms.png",
                "a1e1be59aa447f8ce082f7fa809997ab369a2b137cb6c4202abc647c7ccf6456",
            ),
        ),
    ),
    "cell": (
        "Microscopy",
        "CC0-1.0",
        (_skimage("cell.png", "8d23a7fb81f7cc877cd09f330357fc7f595651306e84e17252f6e0a1b3f61515"),),
    ),
    "nuclei": (
        "Microscopy",
        "MIT",
        (
            WheelFile(
                "mahotas==1.4.19",
                "mahotas/demos/data/nuclear.png",
                "c0d3fc389d90a90118b43b585cd5134a560a7fcadb7b46825fc7845321755e27",
                LINUX,
            ),
        ),
    ),
    "histology": (
        "Histology",
        "CC0-1.0",
        (
            WheelFile(
                "wsidicom-data==0.3.0",
                "wsidicom_data/data/test_tile.png",
                "bc597d1ced0752356760fe639828f71cd5cdb1949c31105193f7df72c4e63fd4",
            ),
        ),
    ),
    "ihc": (
        "Histology",
        "no known copyright restrictions",
        (_skimage("ihc.png", "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef"),),
    ),
    "natural": (
        "Photograph",
        "CC0-1.0 or public domain",
        (
            _skimage(
                "camera.png", "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a"
            ),
            _skimage(
                "astronaut.png", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"
            ),
            _skimage(
                "chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"
            ),
            _skimage(
                "coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"
            ),
            _skimage(
                "rocket.jpg", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c"
            ),
            _skimage(
                "coins.png", "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba"
            ),
        ),
    ),
    "natural_by": (
        "Photograph",
        "CC-BY-2.0",
        (
            WheelFile(
                "scikit-learn==1.9.1",
                "sklearn/datasets/images/china.jpg",
                "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
                LINUX,
            ),
            WheelFile(
                "scikit-learn==1.9.1",
                "sklearn/datasets/images/flower.jpg",
                "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
                LINUX,
            ),
        ),
    ),
}
