"""Codes of the standard that are told apart here; only these get into outputs."""

# (0008,0060) of objects that are images, with the word for a modality where there is one word
WORD_OF_MODALITY: dict[str, str | None] = {
    "CT": "CT",
    "PT": "PET",
    "US": "Ultrasound",
    "IVUS": "Ultrasound",
    "CR": "X-ray",
    "DX": "X-ray",
    "RG": "X-ray",
    "RF": "X-ray",
    "XA": "X-ray",
    "IO": "X-ray",
    "PX": "X-ray",
    "MG": "Mammography",
    "OPT": "OCT",
    "IVOCT": "OCT",
    "MR": None,  # T1W, T2W, cine ...: the header does not say it in one way
    **dict.fromkeys(("NM", "OP", "ES", "GM", "SM", "XC", "DMS", "BI", "TG", "LS", "OT", "SC")),
    **dict.fromkeys(("BMD", "EPS", "RTIMAGE", "OPM", "OPV", "DG", "ST", "DF", "DS", "VF", "VA")),
}
SEGMENTATIONS = frozenset(
    {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"}  # the second: label maps
)
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
DICOMDIR = "1.2.840.10008.1.3.10"
# objects that have pixels, but show no picture of a patient's body
NO_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.481.2": "RTDOSE",
    "1.2.840.10008.5.1.4.1.1.30": "parametric map",
    "1.2.840.10008.5.1.4.1.1.66.3": "deformable registration",
    "1.2.840.10008.5.1.4.1.1.66.5": "surface segmentation",
}
# (0008,0060) of objects without pictures
OBJECTS = frozenset(
    {
        *("SR", "PR", "KO", "DOC", "REG", "FID", "RWV", "PLAN", "RTPLAN", "RTDOSE", "RTRECORD"),
        *("SEG", "RTSTRUCT", "AU", "ECG", "HD", "EEG", "RESP", "SMR", "ASMT", "M3D", "STAIN"),
    }
)
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "PALETTE COLOR")


def modality_code(said: str | None) -> str | None:
    """Give a header's modality if the standard has it: the field can hold anything."""
    return said if said in WORD_OF_MODALITY or said in OBJECTS else None
