"""The choice of photos for the bundled styles."""

import io

from PIL import Image
from training.test_tokenizer import pictures

from stylerdalle.learn.pictures import Picture
from stylerdalle.training.styles import large_photos


def test_large_photos_are_preferred_and_small_ones_are_the_last_resort():
    stream = io.BytesIO()
    Image.new("RGB", (300, 260)).save(stream, "PNG")
    large = Picture("large", stream.getvalue(), style="photo")
    small = [Picture(p.key, p.data, style="photo") for p in pictures(2)]
    assert large.size == (300, 260)
    assert large_photos([*small, large]) == [large]
    assert large_photos(small) == small
