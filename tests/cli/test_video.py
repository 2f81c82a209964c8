"""`stylerdalle stylize clip.mp4`: a video in a style, and what is said where it cannot be made."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from stylerdalle.cli.main import main
from stylerdalle.images.files import write_picture

av = pytest.importorskip("av", reason="av is not installed (pip install av)")


def make(path: Path, frames: int = 6, size=(64, 48)) -> Path:
    """A video that pans over a smooth random scene, with a tone."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 12, 24, generator=generator)
    scene = torch.nn.functional.interpolate(coarse, (96, 192), mode="bicubic")[0].clamp(0, 1).movedim(0, -1)
    with av.open(str(path), "w") as out:
        stream, tone = out.add_stream("libx264", rate=Fraction(12)), out.add_stream("aac", rate=44100)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i in range(frames):
            view = (scene[10 : 10 + size[1], 2 * i : 2 * i + size[0]] * 255).byte().contiguous().numpy()
            out.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        piece = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        piece.sample_rate = 44100
        out.mux(tone.encode(piece))
        for each in (stream, tone):
            out.mux(each.encode(None))
    return path


def stylize(*words: object) -> int:
    return main(["stylize", *map(str, words), "--style", "ukiyo-e"])


def test_a_video_is_painted_with_its_sound(tmp_path, bundle_folder, capsys):
    clip, out = make(tmp_path / "clip.mp4"), tmp_path / "made" / "clip.mp4"
    assert stylize(clip, "--bundle", bundle_folder, "--output", f"{out.parent}/") == 0
    assert f"{out}: 64 x 48 px, 6 frames, style ukiyo-e" in capsys.readouterr().out
    with av.open(str(out)) as made:
        assert len(made.streams.audio) == 1 and made.streams.video[0].average_rate == 12
        assert len(list(made.decode(video=0))) == 6


def test_a_video_may_be_resized(tmp_path, bundle_folder, capsys):
    clip, out = make(tmp_path / "clip.mp4", frames=2), tmp_path / "out.mkv"
    assert stylize(clip, "--bundle", bundle_folder, "--output", out, "--size", 33, "--keep-colour", 1) == 0
    assert "44 x 32 px, 2 frames" in capsys.readouterr().out


def test_frames_as_photos_can_be_steady(tmp_path, bundle_folder):
    generator = torch.Generator().manual_seed(0)
    plain = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 8, generator=generator), (48, 64), mode="bicubic").clamp(0, 1)
    for i in range(3):
        noise = 0.01 * torch.randn(plain.shape, generator=generator)
        write_picture(tmp_path / f"{i}.png", (plain + noise).clamp(0, 1))
    frames = [tmp_path / f"{i}.png" for i in range(3)]
    for name, words in (("alone", ()), ("steady", ("--steady", 1))):
        assert stylize(*frames, "--bundle", bundle_folder, "--output", tmp_path / name, *words) == 0
    from stylerdalle.images.files import read_picture

    def change(name: str) -> float:
        first, last = (read_picture(tmp_path / name / f"{i}.png")[0] for i in (0, 2))
        return float((first - last).abs().mean())

    assert change("steady") < 0.5 * change("alone")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--output", "out.png"), "use .mp4, .mov, .mkv"),
        (("--output", "clip.mp4", "--overwrite"), "is the photo itself"),
        (("--output", "out.mp4", "--candidates", "2", "--temperature", "1"), "--candidates 2 is for single photos"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    data = make(tmp_path / "clip.mp4", frames=1).read_bytes()
    assert stylize("clip.mp4", *words) == 2
    problem = capsys.readouterr().err
    assert says in problem and len(problem.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"] and (tmp_path / "clip.mp4").read_bytes() == data


def test_a_damaged_video_is_one_sentence(tmp_path, bundle_folder, capsys):
    (tmp_path / "torn.mp4").write_bytes(make(tmp_path / "clip.mp4").read_bytes()[:900])
    assert stylize(tmp_path / "torn.mp4", "--bundle", bundle_folder, "--output", tmp_path / "out.mp4") == 2
    problem = capsys.readouterr().err
    assert "cannot be read as a video" in problem and len(problem.splitlines()) == 1
    assert not (tmp_path / "out.mp4").exists()
