"""Opening image files of any kind, metadata apart, before their pixels are decoded."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from g2vlm.errors import MissingExtraError
from g2vlm.inputs.formats.colours import undeclared_range_to_bytes
from g2vlm.inputs.formats.containers import without_metadata
from g2vlm.inputs.formats.exif import ORIENTATION, Metadata, read_metadata
from g2vlm.inputs.formats.limits import check_size
from g2vlm.inputs.formats.opencv import TIFF_MAGIC, decode_deep, tiff_size

_HEIF_BRANDS = frozenset({b"hei", b"hev", b"mif", b"msf"})
_DEEP = 0x3F  # largest high byte of 16-bit values that use 14 bits or fewer


def open_image(data: bytes) -> tuple[Image.Image, Metadata]:
    """Open an image file, without decoding its pixels, and read its metadata apart.

    Raises:
        Many kinds of errors, as Pillow does.
    """
    pixels, metadata = without_metadata(data)
    image = _open(pixels)
    if metadata is None or data[4:8] == b"ftyp":
        told = metadata_of(image)
        camera = told.camera if metadata is None else metadata.camera
        metadata = Metadata(told.orientation, camera, told.xmp, told.icc)
    return image, metadata


def _open(data: bytes) -> Image.Image:
    """Open an image with Pillow, with its HEIC plugin, or with OpenCV."""
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        if data[4:8] == b"ftyp" and data[8:11] in _HEIF_BRANDS:
            register_heif()
            return Image.open(io.BytesIO(data))
        if data[:4] in TIFF_MAGIC:
            return _open_deep(data)
        raise
    check_size(*image.size)
    if (
        image.format in ("PNG", "TIFF")
        and image.mode in ("RGB", "RGBA")
        and _uses_few_of_16_bits(image, data)
    ):
        return _open_deep(data)
    return image


def _uses_few_of_16_bits(image: Image.Image, data: bytes) -> bool:
    """Whether colours of 10, 12 or 14 bits are stored in 16, of which Pillow keeps the upper 8."""
    bits = data[24] if image.format == "PNG" else max(image.tag_v2.get(258, (8,)))  # type: ignore[attr-defined]
    if bits != 16 or getattr(image, "n_frames", 1) > 1:
        return False
    return max(high for _, high in image.convert("RGB").getextrema()) <= _DEEP  # type: ignore[misc]


def _open_deep(data: bytes) -> Image.Image:
    """Decode what Pillow does not know or cuts short, such as floating RGB in TIFF."""
    if data[:4] in TIFF_MAGIC:
        check_size(*tiff_size(io.BytesIO(data)))
    values = decode_deep(data)
    return Image.fromarray(np.ascontiguousarray(undeclared_range_to_bytes(values)))


def register_heif() -> None:
    """Teach Pillow the HEIC photos of telephones.

    Raises:
        MissingExtraError: The plugin is not installed.
    """
    try:
        import pillow_heif
    except ImportError as error:
        raise MissingExtraError("Reading HEIC photos", "heif") from error
    pillow_heif.register_heif_opener()


def metadata_of(image: Image.Image) -> Metadata:
    """What an opened image says about itself, whatever it says."""
    exif, xmp, icc = (image.info.get(key, b"") for key in ("exif", "xmp", "icc_profile"))
    texts = [value if isinstance(value, bytes) else b"" for value in (exif, xmp, icc)]
    metadata = read_metadata(*texts)
    if texts[0] and image.format != "AVIF":
        return metadata
    # Tags that were set on the image, and the turns of AVIF, which Pillow tells as tags.
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001  Pillow raises anything on odd metadata; the pixels are fine
        return metadata
    usable = isinstance(orientation, int) and orientation in range(2, 9)
    return Metadata(orientation, metadata.camera, metadata.xmp, metadata.icc) if usable else metadata
