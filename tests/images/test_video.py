"""Video files: pictures, times and sound in and out; one sentence where it cannot be."""

import logging
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from stylerdalle.images import video
from stylerdalle.images.video import Written, repaint

av = pytest.importorskip("av", reason="av is not installed (pip install av)")

COLOURS = ((200, 40, 40), (40, 180, 60), (40, 60, 200), (230, 220, 120))


def make(path: Path, frames: int = 10, size=(96, 64), rate=Fraction(25), sound: bool = True, codec: str = "libx264") -> Path:
    """A small video: four areas of plain colour, and a tone."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options={"crf": "10"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        tone = out.add_stream("aac", rate=44100) if sound else None
        for i in range(frames):
            picture = np.zeros((size[1], size[0], 3), np.uint8)
            for k, colour in enumerate(COLOURS):
                rows, columns = divmod(k, 2)
                picture[rows * size[1] // 2 :, columns * size[0] // 2 :][: size[1] // 2, : size[0] // 2] = colour
            picture[:, :4] = 10 * i % 250
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for i in range(round(frames / rate * 44100) // 1024 if tone else 0):
            wave = np.sin((np.arange(1024) + 1024 * i) * 0.06).astype(np.float32)[None]
            piece = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = 44100, 1024 * i, Fraction(1, 44100)
            out.mux(tone.encode(piece))
        for each in (stream, tone) if tone else (stream,):
            out.mux(each.encode(None))
    return path


def same(frames: torch.Tensor) -> torch.Tensor:
    return frames


def read(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as given:
        frames = list(given.decode(video=0))
    return [frame.to_ndarray(format="rgb24", src_colorspace=video.BT709) for frame in frames], [frame.time for frame in frames]


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as given:
        return [bytes(packet) for packet in given.demux(audio=0) if packet.size]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_pictures_times_rate_and_sound_are_kept(tmp_path, suffix):
    clip = make(tmp_path / "clip.mp4", rate=Fraction(30000, 1001))
    calls = []
    made = repaint(clip, tmp_path / f"out{suffix}", same, progress=lambda *call: calls.append(call))
    assert made == Written(10, 96, 64, "libx264")
    (_, old), (after, new) = read(clip), read(tmp_path / f"out{suffix}")
    # Matroska begins with the sound, which AAC begins before the pictures
    assert len(after) == 10 and np.allclose(np.subtract(old, old[0]), np.subtract(new, new[0]), atol=2e-3)
    assert packets(clip) == packets(tmp_path / f"out{suffix}")
    assert calls[-1] == (8, 10)
    with av.open(str(tmp_path / f"out{suffix}")) as made:
        stream = made.streams.video[0]
        assert stream.codec_context.pix_fmt == "yuv420p" and abs(stream.average_rate - Fraction(30000, 1001)) < 0.01
    for k, colour in enumerate(COLOURS):
        y, x = 16 + 32 * (k // 2), 24 + 48 * (k % 2)
        assert np.abs(after[3][y, x].astype(int) - colour).max() <= 6


def test_frames_come_in_small_chunks_and_pictures_may_have_another_odd_size(tmp_path):
    sizes = []

    def paint(frames):
        sizes.append(tuple(frames.shape))
        return frames[..., :33, :51]

    assert repaint(make(tmp_path / "clip.mp4"), tmp_path / "out.mp4", paint) == Written(10, 50, 32, "libx264")
    assert sizes == [(4, 3, 64, 96), (4, 3, 64, 96), (2, 3, 64, 96)]


def test_frames_with_uneven_times_keep_them(tmp_path):
    clip, times = tmp_path / "clip.mkv", [0, 40, 200, 240, 900]
    with av.open(str(clip), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), time // 4, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    repaint(clip, tmp_path / "out.mkv", same)
    assert np.allclose(read(tmp_path / "out.mkv")[1], [time / 1000 for time in times], atol=2e-3)


def test_pixels_that_are_not_square_stay_so(tmp_path):
    clip = tmp_path / "clip.mp4"
    with av.open(str(clip), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode(None))
    repaint(clip, tmp_path / "out.mp4", same)
    with av.open(str(tmp_path / "out.mp4")) as made:
        assert made.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_single_damaged_parts_are_passed_over_with_a_warning(tmp_path, caplog):
    clip = make(tmp_path / "clip.mkv", frames=40, sound=False)
    with av.open(str(clip)) as given:
        parts = [bytes(packet) for packet in given.demux(video=0) if packet.size]
    data = clip.read_bytes()
    for part in parts[10:12]:
        assert data.count(part) == 1
        data = data.replace(part, bytes([255]) * len(part))
    (tmp_path / "torn.mkv").write_bytes(data)
    with caplog.at_level(logging.WARNING):
        made = repaint(tmp_path / "torn.mkv", tmp_path / "out.mp4", same)
    assert 30 <= made.frames <= 40 and "damaged" in caplog.text


def test_a_silent_video_stays_silent(tmp_path):
    repaint(make(tmp_path / "clip.mp4", sound=False), tmp_path / "out.mp4", same)
    with av.open(str(tmp_path / "out.mp4")) as made:
        assert not made.streams.audio and len(list(made.decode(video=0))) == 10


def test_what_is_no_video_is_refused_and_nothing_is_left(tmp_path):
    text, sound, torn = tmp_path / "text.mp4", tmp_path / "sound.mkv", tmp_path / "torn.mp4"
    text.write_text("no video\n" * 100)
    torn.write_bytes(make(tmp_path / "clip.mp4").read_bytes()[:2000])
    with av.open(str(sound), "w") as out:
        tone = out.add_stream("aac", rate=44100)
        piece = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        piece.sample_rate = 44100
        out.mux(tone.encode(piece))
        out.mux(tone.encode(None))
    before = sorted(path.name for path in tmp_path.iterdir())
    for path, says in ((text, "cannot be read as a video"), (torn, "cannot be read as a video"), (sound, "no video stream")):
        with pytest.raises(ValueError, match=says):
            repaint(path, tmp_path / "out.mp4", same)
    with pytest.raises(ValueError, match="does not exist"):
        repaint(tmp_path / "none.mp4", tmp_path / "out.mp4", same)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_input_or_a_file_that_exists_is_not_replaced(tmp_path):
    clip, other = make(tmp_path / "clip.mp4"), tmp_path / "other.mp4"
    other.write_bytes(b"mine")
    data = clip.read_bytes()
    with pytest.raises(ValueError, match="one of the inputs"):
        repaint(clip, clip, same, overwrite=True)
    with pytest.raises(ValueError, match="exists already"):
        repaint(clip, other, same)
    with pytest.raises(ValueError, match="suffix"):
        repaint(clip, tmp_path / "out.png", same)
    assert clip.read_bytes() == data and other.read_bytes() == b"mine"


def test_an_error_while_painting_leaves_no_file(tmp_path):
    def fails(frames):
        raise RuntimeError("stop")

    clip = make(tmp_path / "clip.mp4")
    with pytest.raises(RuntimeError, match="stop"):
        repaint(clip, tmp_path / "out.mp4", fails)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_without_x264_another_encoder_is_named(tmp_path, monkeypatch, caplog):
    clip = make(tmp_path / "clip.mp4")
    monkeypatch.setattr(video, "ENCODERS", ("no-such-encoder", "mpeg4"))
    with caplog.at_level(logging.WARNING):
        assert repaint(clip, tmp_path / "out.mp4", same).encoder == "mpeg4"
    assert "no no-such-encoder" in caplog.text and len(read(tmp_path / "out.mp4")[0]) == 10
    monkeypatch.setattr(video, "ENCODERS", ("no-such-encoder",))
    with pytest.raises(ValueError, match="none of the encoders no-such-encoder"):
        repaint(clip, tmp_path / "out2.mp4", same)


def test_without_the_package_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    clip = make(tmp_path / "clip.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match="pip install av"):
        repaint(clip, tmp_path / "out.mp4", same)
