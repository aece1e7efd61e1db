"""What comes from a browser: bounded in size while it arrives, and files under names of our own choosing."""

import re
from pathlib import Path
from typing import Any

from g2vlm.errors import InputError

_NAME_LENGTH = 80
_MEGABYTE = 1_000_000

DROP_ZONE = """
<div id="g2vlm-drop" style="margin: 0 10px 8px; padding: 14px 8px; border: 2px dashed rgba(128, 140, 155, .6);
 border-radius: 10px; text-align: center; font-size: 13px; opacity: .85">Drop photos or a video anywhere</div>
<img alt="" style="display: none"
 src="data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
 onload="(() => {
  const input = () => document.querySelector('input[type=file]');
  const give = async (files) => {
    for (const file of files) {
      const one = new DataTransfer();
      one.items.add(file);
      const target = input();
      if (!target) return;
      target.files = one.files;
      target.dispatchEvent(new CustomEvent('change', { bubbles: true, detail: 'one' }));
      const wait = () => new Promise((resolve) => setTimeout(resolve, 60));
      await wait();
      while (target.isConnected && target.nextElementSibling?.disabled) await wait();
    }
  };
  if (window.g2vlmDrop) return;
  window.g2vlmDrop = true;
  const mark = (on) => {
    const zone = document.getElementById('g2vlm-drop');
    if (zone) zone.style.background = on ? 'rgba(76, 194, 255, .25)' : '';
  };
  window.addEventListener('dragover', (event) => { event.preventDefault(); mark(true); });
  window.addEventListener('dragleave', () => mark(false));
  window.addEventListener('drop', (event) => {
    event.preventDefault();
    mark(false);
    give([...event.dataTransfer.files]);
  });
  document.addEventListener('click', () => { if (input()) input().multiple = true; }, true);
  document.addEventListener('change', (event) => {
    if (event.target !== input() || event.detail === 'one' || event.target.files.length < 2) return;
    event.stopImmediatePropagation();
    give([...event.target.files]);
  }, true);
 })()">
"""
"""An area to drop files on. viser's upload button takes one file at a time: this hands them over one by one,
also where several are chosen."""


def bound_uploads(client: Any, max_bytes: int) -> None:
    """Refuse files of a browser that are, or turn out, larger than allowed, before they are in memory.

    Args:
        client: viser's handle of the browser.
        max_bytes: of one file.
    """
    from viser import _messages

    states: dict[str, dict[str, Any]] = client.gui._current_file_upload_states

    def on_start(client_id: int, message: Any) -> None:
        if message.size_bytes > max_bytes:
            states.pop(message.transfer_uuid, None)
            text = f"{message.filename}: {message.size_bytes / 1e6:.0f} MB, at most {max_bytes / 1e6:.0f} MB."
            client.add_notification("Upload refused", text, color="red")
            # The button waits until all has arrived: without this it would stay grey.
            client._websock_connection.queue_message(
                _messages.FileTransferPartAck(
                    source_component_uuid=message.source_component_uuid,
                    transfer_uuid=message.transfer_uuid,
                    transferred_bytes=message.size_bytes,
                    total_bytes=message.size_bytes,
                )
            )

    def on_part(client_id: int, message: Any) -> None:
        state = states.get(message.transfer_uuid)
        if state is not None and state["transferred_bytes"] > max_bytes:
            states.pop(message.transfer_uuid, None)

    client._websock_connection.register_handler(_messages.FileTransferStartUpload, on_start)
    client._websock_connection.register_handler(_messages.FileTransferPart, on_part)


def store(name: str, content: bytes, folder: Path) -> Path:
    """Write an uploaded file into a folder, under a name that cannot lead out of it.

    Args:
        name: as the browser says it.
        content: of the file.
        folder: of this browser.

    Raises:
        InputError: an empty file.
    """
    if not content:
        raise InputError(f"Cannot use {name!r}: empty file (0 bytes).")
    plain = re.sub(r"[^\w.() -]", "_", Path(name.replace("\\", "/")).name).lstrip(". ")
    stem, suffix = Path(plain).stem[:_NAME_LENGTH] or "photo", Path(plain).suffix[:16]
    path, number = folder / f"{stem}{suffix}", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}{suffix}"
    path.write_bytes(content)
    return path
