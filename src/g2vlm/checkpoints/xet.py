"""Xet, the hub's store of files in chunks by content, read from any byte on.

The hub library's function for whole files begins at the first byte in every process; the session behind it
can begin anywhere.
"""

import importlib.util
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub.utils._xet import XetFileData


def is_wanted() -> bool:
    """Whether the client is installed, as it is with the hub library, and the user did not forbid it."""
    forbidden = os.environ.get("HF_HUB_DISABLE_XET", "").upper() in ("1", "ON", "YES", "TRUE")
    return not forbidden and importlib.util.find_spec("hf_xet") is not None


def stream(place: "XetFileData", headers: Mapping[str, str], size: int, offset: int) -> Iterator[bytes]:
    """The bytes of a file from `offset` on, in order.

    Args:
        place: what the hub says about the file.
        headers: of requests to the hub, which gives a key to the store.
        size: bytes of the whole file.
        offset: less than `size`.

    Raises:
        RuntimeError: so do OSError, ValueError and ImportError say that the store cannot be read.
    """
    from hf_xet import XetFileInfo
    from huggingface_hub.utils import _xet

    connection = _xet.refresh_xet_connection_info(file_data=place, headers=dict(headers))
    group = _xet.get_xet_session().new_download_stream_group(
        endpoint=connection.endpoint,
        token=connection.access_token,
        token_expiry_unix_secs=connection.expiration_unix_epoch,
        token_refresh_url=place.refresh_route,
        token_refresh_headers=dict(headers),
        custom_headers=_xet.xet_headers_without_auth(dict(headers)),
    )
    try:
        for piece in group.download_stream(XetFileInfo(place.file_hash, size), start=offset):
            offset += len(piece)
            yield piece
        if offset != size:  # what the store does not know ends at once, without an error
            raise RuntimeError(f"the store gave {offset:,} of {size:,} bytes")
        group.finish()
    except BaseException:
        group.abort()
        raise
