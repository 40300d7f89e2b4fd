"""What is read of the files of an export; it needs no torch."""

from particleforge.stored import Stored


class ParityFile(Stored):
    """What is read of an export's comparison with torch."""

    KIND = "parity"
    REMEDY = "rerun export_onnx"
