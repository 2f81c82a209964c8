"""Video files in and out by PyAV (https://pyav.basswood-io.com), a few frames at a time, with their sound and their times."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..progress import Progress
from ..storage import placing
from .files import check_file, check_output

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")  # of files that are read as videos
VIDEO_OUTPUTS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}  # suffix: the format that is written
ENCODERS = ("libx264", "libopenh264", "mpeg4")  # the first that this PyAV has
QUALITY = {"libx264": {"crf": "17"}, "libopenh264": {"b": "8M"}, "mpeg4": {"qscale": "3", "flags": "+qscale"}}
CHUNK = 4  # frames that are painted at once
HD = 720  # px of height from which a video that does not name its colours has those of BT.709, else BT.601
BT709, BT601, UNNAMED = 1, 5, 2  # FFmpeg's numbers
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Written:
    """What was written."""

    frames: int
    width: int
    height: int
    encoder: str


def is_video(path: str | Path) -> bool:
    """Whether a file is to be read as a video, by its suffix."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def repaint(
    source: str | Path,
    target: str | Path,
    paint: Callable[[Tensor], Tensor],
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Write a video anew with other pictures: H.264, yuv420p, with the sound and the times of the frames as they were.

    Args:
        paint: frames (b, 3, H, W) in [0, 1], at most CHUNK -> pictures (b, 3, h, w), always of one size. Of an odd side the last
            row or column is left out.
        overwrite: replace an existing file, which is never half-written.
        progress: called with (frames done, frames in all, as far as the file tells).

    Raises:
        ValueError: PyAV is missing, or one of the files cannot be read or written; one sentence for the user.
    """
    source, av = Path(source), pyav()
    target = check_output(target, overwrite, tuple(VIDEO_OUTPUTS), [source])
    check_file(source)
    try:
        given = av.open(str(source))
    except av.FFmpegError as error:
        raise ValueError(f"{source} cannot be read as a video ({reason(error)}): it is damaged, or not a video") from error
    with given:
        if not given.streams.video:
            raise ValueError(f"{source} has no video stream: give a file with moving pictures")
        target.parent.mkdir(parents=True, exist_ok=True)
        with placing(target) as temporary:
            writer = Writer(av, temporary, VIDEO_OUTPUTS[target.suffix.lower()], given)
            try:
                with writer.out:
                    return _repainted(source, given, writer, paint, progress)
            except av.FFmpegError as error:
                raise ValueError(f"{target} cannot be written ({reason(error)}): try an output that ends in .mkv") from error


def _repainted(source: Path, given: Any, writer: Writer, paint: Callable[[Tensor], Tensor], progress: Progress | None) -> Written:
    reader, waiting = Reader(given, writer.sound), []
    for frame in reader.frames():
        waiting.append(frame)
        if len(waiting) == CHUNK:
            writer.write(paint(pixels(waiting)), waiting)
            waiting = []
            if progress:
                progress(writer.count, max(writer.count, reader.total))
    if waiting:
        writer.write(paint(pixels(waiting)), waiting)
    if not writer.count:
        raise ValueError(f"{source} has no frame that can be read: it is damaged, or its codec is not known here")
    if reader.damaged:
        log.warning("%s: passed over %d damaged parts", source, reader.damaged)
    return writer.finish()


def pyav() -> Any:
    """The package av. Raises ValueError without it."""
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise ValueError("videos need the package av, which is not installed: run `pip install av`") from error


def reason(error: Exception) -> str:
    """FFmpeg's words for an error."""
    return str(getattr(error, "strerror", None) or error)


class Reader:
    """The frames of an open video, in order; what belongs to its sound is handed on untouched.

    Args:
        sound: called with each packet of sound.
    """

    def __init__(self, given: Any, sound: Callable[[Any], None]):
        self.given, self.sound, self.video = given, sound, given.streams.video[0]
        self.video.thread_type = "AUTO"
        self.damaged = 0
        length = float(self.video.duration * self.video.time_base) if self.video.duration else (given.duration or 0) / 1e6
        self.total = self.video.frames or round(length * float(self.video.average_rate or 0))

    def frames(self) -> Iterator[Any]:
        error = pyav().FFmpegError
        for packet in self.given.demux(self.video, *self.given.streams.audio):
            if packet.stream.type == "audio":
                if packet.dts is not None:
                    self.sound(packet)
                continue
            try:
                decoded = packet.decode()
            except error:
                self.damaged += 1
                continue
            yield from decoded


def pixels(frames: list[Any]) -> Tensor:
    """Frames as (b, 3, H, W) in [0, 1], turned upright. One of another size than the first is scaled to it."""
    pictures, size = [], (frames[0].width, frames[0].height)
    for frame in frames:
        colours = {"src_colorspace": BT709 if frame.height >= HD else BT601} if frame.colorspace == UNNAMED else {}
        rgb = frame.to_ndarray(format="rgb24", width=size[0], height=size[1], **colours)
        pictures.append(np.ascontiguousarray(np.rot90(rgb, round(getattr(frame, "rotation", 0) / 90))))
    return torch.from_numpy(np.stack(pictures)).movedim(-1, 1).float().div_(255)


class Writer:
    """A video file that is being written, with the sound of another one."""

    def __init__(self, av: Any, path: Path, kind: str, given: Any):
        self.av, self.given = av, given
        self.encoder = encoder(av)
        self.out = av.open(str(path), "w", format=kind)
        self.video: Any = None
        self.sounds: dict[int, Any] = {}  # by their place in the source
        self.held: list[Any] = []  # sound from before the first picture
        self.count, self.last = 0, -1

    def write(self, pictures: Tensor, frames: list[Any]) -> None:
        """Append pictures (b, 3, h, w), shown when the given frames were."""
        height, width = (side - side % 2 or 2 for side in pictures.shape[-2:])
        if self.video is None:
            self.begin(height, width)
        values = (
            (pictures.clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, -1)[:, :height, :width].contiguous().cpu().numpy()
        )
        for rgb, frame in zip(values, frames, strict=True):
            made = self.av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p", dst_colorspace=BT709)
            made.time_base = self.video.codec_context.time_base
            made.pts = self.last = max(self.last + 1, self.time(frame))
            self.count += 1
            self.out.mux(self.video.encode(made))

    def time(self, frame: Any) -> int:
        """When a frame is shown, in the new video's units."""
        base = self.video.codec_context.time_base
        if frame.pts is None:
            return self.last + max(1, round(1 / (self.rate * base)))
        return round(frame.pts * frame.time_base / base)

    def begin(self, height: int, width: int) -> None:
        source = self.given.streams.video[0]
        self.rate = Fraction(source.average_rate or source.base_rate or 25).limit_denominator(65535)
        self.video = self.out.add_stream(self.encoder, rate=self.rate, options=QUALITY[self.encoder])
        context = self.video.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        # mpeg4's units are at least 1/65535 s
        context.time_base = source.time_base if self.encoder == "libx264" and source.time_base else 1 / self.rate
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = 1  # "mpeg", 16 to 235
        if source.sample_aspect_ratio:  # of pixels that are not square
            context.sample_aspect_ratio = source.sample_aspect_ratio
        for sound in self.given.streams.audio:
            self.sounds[sound.index] = self.out.add_stream_from_template(sound)
        for packet in self.held:
            self.sound(packet)
        self.held = []

    def sound(self, packet: Any) -> None:
        """Append a packet of sound."""
        if self.video is None:
            self.held.append(packet)
            return
        packet.stream = self.sounds[packet.stream.index]
        self.out.mux(packet)

    def finish(self) -> Written:
        """Write what the encoder still holds."""
        self.out.mux(self.video.encode(None))
        return Written(self.count, self.video.width, self.video.height, self.encoder)


def encoder(av: Any) -> str:
    """The encoder to use. Raises ValueError if this PyAV has none of ENCODERS."""
    for name in ENCODERS:
        try:
            av.codec.Codec(name, "w")
        except Exception as error:  # PyAV's UnknownCodecError has moved between its versions
            log.debug("no encoder %s: %s", name, error)
            continue
        if name != ENCODERS[0]:
            log.warning("this PyAV has no %s: the video is written with %s", ENCODERS[0], name)
        return name
    raise ValueError(f"this PyAV has none of the encoders {', '.join(ENCODERS)}: run `pip install --force-reinstall av`")
