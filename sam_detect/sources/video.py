"""What a user means by the source of a video: a camera, a file, a folder of frames, an address."""

from __future__ import annotations

import glob
import os

from sam_detect.errors import ConfigError
from sam_detect.interfaces import Source
from sam_detect.sources._persistence import RETRIES, TIMEOUT_S
from sam_detect.sources.addresses import is_url
from sam_detect.sources.cameras import CameraSource
from sam_detect.sources.images import DEFAULT_MAX_PIXELS
from sam_detect.sources.video_files import FRAME_RATE, FramesSource, VideoFileSource
from sam_detect.sources.video_streams import open_url

__all__ = ["CameraSource", "FramesSource", "VideoFileSource", "open_source", "open_url"]


def open_source(
    argument: int | str | os.PathLike[str],
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    frame_rate: float = FRAME_RATE,
    timeout_s: float = TIMEOUT_S,
    retries: int = RETRIES,
    playlist_hosts: str = "own",
) -> Source:
    """The source of frames that a user names, opened, so that what is not there is said at once.

    Args:
        argument: a camera's number (also as text), an address (http, https, rtsp, rtsps), a
            folder or pattern of pictures, or a video file.
        max_pixels: larger frames are refused before they are decoded.
        frame_rate: of a folder or pattern, in frames a second.
        timeout_s: how long to wait for the next part of a stream.
        retries: how often to try to get a stream or camera back, in a row.
        playlist_hosts: where a playlist may lead: ``own`` (its own host and port) or ``any``.

    Raises:
        ConfigError: an address or number that names no source.
        ImageError: it is not there, or is no video.
    """
    if isinstance(argument, bool) or not isinstance(argument, (int, str, os.PathLike)):
        raise ConfigError(
            "a video is a camera's number, a path, an address or a sam_detect.interfaces.Source, "
            f"got {type(argument).__name__}"
        )
    name = str(argument)
    # A number is a camera's; a Path never is, nor a text that names what is there.
    is_folder = not isinstance(argument, int) and os.path.isdir(name)
    is_number = not isinstance(argument, os.PathLike) and name.removeprefix("-").isdecimal()
    if is_number and not is_folder:
        return CameraSource(int(name), retries=retries, max_pixels=max_pixels)
    if is_url(name):
        return open_url(
            name,
            timeout_s=timeout_s,
            retries=retries,
            max_pixels=max_pixels,
            playlist_hosts=playlist_hosts,
        )
    if is_folder or (glob.has_magic(name) and not os.path.lexists(name)):
        return FramesSource(name, frame_rate=frame_rate, max_pixels=max_pixels)
    return VideoFileSource(name, max_pixels=max_pixels)
