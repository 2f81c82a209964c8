"""Picture files to tensors and back: the public names of images/files.py."""

from .images.files import SUFFIXES, check_output, over_white, read_picture, resized, to_image, write_picture

__all__ = ["SUFFIXES", "check_output", "over_white", "read_picture", "resized", "to_image", "write_picture"]
