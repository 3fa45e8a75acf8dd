"""Images: reading them from anywhere within limits, and making model input of them.

- :func:`read_image`: a path, http(s) URL, bytes, Pillow image or array to a :class:`Picture`.
- :func:`spread`: the images in a folder, in its place.
- :func:`read_clip`: a video, or frames, to as many pictures as a model takes.
- :class:`Picture`: the pixels of one image, upright, RGB, never changed.
- :class:`Preprocessing`: what a model expects of its input, and the way there. It resizes the
  whole photo and never crops, so that a heatmap over the input is a heatmap over the photo.
"""

from __future__ import annotations

from dff.images.clips import VIDEOS, is_video, read_clip
from dff.images.folders import IMAGES, spread
from dff.images.picture import Picture
from dff.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from dff.images.reading import MAX_BYTES, MAX_PIXELS, TIMEOUT, Source, read_image, source_name

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "IMAGES",
    "MAX_BYTES",
    "MAX_PIXELS",
    "TIMEOUT",
    "VIDEOS",
    "Picture",
    "Preprocessing",
    "Source",
    "is_video",
    "read_clip",
    "read_image",
    "source_name",
    "spread",
]
