"""DICOM: files become series and masks; nothing of a header that names a person goes further."""
