"""What TensorBoard shows, written without TensorFlow: scalars, texts and pictures over steps.

The events are written where the run's state lies, so that they can be watched, and a run that goes on from a checkpoint goes on
with the curves as they were at that step.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import TracebackType

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.image.metadata import create_summary_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

from lmworks.pipeline.markdown import code_block

_FLUSH_SECONDS = 5


class Curves:
    """Event files in a folder.

    Args:
        folder: is made; None writes nothing.
        sizes: what `sizes` said at the checkpoint that the run goes on from: what was written after it is cut off. Empty
            for a new run, which removes what an earlier one left.
    """

    def __init__(self, folder: Path | None, sizes: dict[str, int]) -> None:
        self.folder = folder
        self._writer: EventFileWriter | None = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if not sizes:
            shutil.rmtree(folder / "plugins", ignore_errors=True)  # profiles
        for path in _event_files(folder):
            if path.name not in sizes:
                path.unlink()
            elif path.stat().st_size > sizes[path.name]:
                with path.open("r+b") as file:
                    file.truncate(sizes[path.name])
        self._writer = EventFileWriter(str(folder), flush_secs=_FLUSH_SECONDS)

    def sizes(self) -> dict[str, int]:
        """Bytes of every file up to what was written last."""
        if self._writer is None or self.folder is None:
            return {}
        self._writer.flush()
        return {path.name: path.stat().st_size for path in _event_files(self.folder)}

    def scalar(self, tag: str, value: float, step: int) -> None:
        """One point of a curve."""
        self._add(scalar_pb(tag, float(value)), step)

    def text(self, tag: str, text: str, step: int) -> None:
        """A text, shown as it is, though TensorBoard reads Markdown."""
        self._add(text_pb(tag, code_block(text)), step)

    def image(self, tag: str, png: bytes, step: int) -> None:
        """A picture."""
        # A PNG tells its width and height in the 8 bytes from the 16th on (RFC 2083, section 4.1.1).
        size = [str(one).encode() for one in np.frombuffer(png[16:24], ">i4")]
        summary = summary_pb2.Summary()
        metadata = create_summary_metadata(display_name=None, description=None)
        summary.value.add(tag=tag, metadata=metadata, tensor=make_tensor_proto([*size, png], dtype=np.object_))
        self._add(summary, step)

    def _add(self, summary: summary_pb2.Summary, step: int) -> None:
        if self._writer is not None:
            self._writer.add_event(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))

    def __enter__(self) -> Curves:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()


def _event_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"))
