"""A screen without a display (Xvfb), with a mouse and a keyboard (xdotool)."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import pytest

PROGRAMS = ("Xvfb", "xdotool")
SIZE = "1366x768x24"
WAIT_S = 20


class Screen:
    """One screen.

    Attributes:
        name: what ``DISPLAY`` must be to be shown on it.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def window(self, title: str) -> str:
        """The id of the window of this title, as soon as it is there; it gets the keyboard."""
        found = self._do("search", "--sync", "--onlyvisible", "--name", f"^{title}$")
        window = found.split()[-1]
        deadline = time.monotonic() + WAIT_S
        while self._tried("windowfocus", window).returncode:  # it is named before it is mapped
            assert time.monotonic() < deadline, "the window takes no keys"
            time.sleep(0.05)
        return window

    def size(self, window: str) -> tuple[int, int]:
        """Width and height."""
        text = self._do("getwindowgeometry", "--shell", window)
        found = dict(line.split("=") for line in text.split())
        return int(found["WIDTH"]), int(found["HEIGHT"])

    def resize(self, window: str, width: int, height: int) -> None:
        self._do("windowsize", window, str(width), str(height))

    def click(self, x: int, y: int) -> None:
        """Where there is no window manager, windows lie in the screen's upper left corner."""
        self._do("mousemove", str(x), str(y), "click", "1")

    def type(self, text: str, *, pause_ms: int = 120) -> None:
        self._do("type", "--delay", str(pause_ms), text)

    def press(self, *keys: str) -> None:
        """Keys by their names: Return, Escape, Tab, space."""
        self._do("key", "--delay", "120", *keys)

    def ask_to_close(self, window: str) -> None:
        """What a click on the cross in a window's corner does (ICCCM 4.2.8.1)."""
        x11 = ctypes.CDLL("libX11.so.6")
        x11.XOpenDisplay.restype = ctypes.c_void_p
        screen = ctypes.c_void_p(x11.XOpenDisplay(self.name.encode()))
        event = _Message(type=33, window=int(window), format=32)
        event.kind = x11.XInternAtom(screen, b"WM_PROTOCOLS", 0)
        event.data[0] = x11.XInternAtom(screen, b"WM_DELETE_WINDOW", 0)
        x11.XSendEvent(
            screen, ctypes.c_ulong(int(window)), 0, ctypes.c_long(0), ctypes.byref(event)
        )
        x11.XCloseDisplay(screen)

    def _do(self, *words: str) -> str:
        done = self._tried(*words)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def _tried(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["xdotool", *words], env={**os.environ, "DISPLAY": self.name},
            capture_output=True, text=True, timeout=WAIT_S, check=False,
        )  # fmt: skip


class _Message(ctypes.Structure):
    """Xlib's XClientMessageEvent, and what an XEvent is longer."""

    _fields_ = (
        ("type", ctypes.c_int), ("serial", ctypes.c_ulong), ("is_sent", ctypes.c_int),
        ("display", ctypes.c_void_p), ("window", ctypes.c_ulong), ("kind", ctypes.c_ulong),
        ("format", ctypes.c_int), ("data", ctypes.c_long * 5), ("rest", ctypes.c_long * 24),
    )  # fmt: skip


@contextmanager
def screen() -> Iterator[Screen]:
    """A screen; the test skips where there can be none."""
    for name in PROGRAMS:
        if shutil.which(name) is None:
            pytest.skip(f"no {name} here: apt-get install xvfb xdotool")
    if not cv2.currentUIFramework():
        pytest.skip("this OpenCV was built without windows")
    read, write = os.pipe()
    line = ["Xvfb", "-screen", "0", SIZE, "-nolisten", "tcp", "-displayfd", str(write)]
    running = subprocess.Popen(
        line, pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(write)
    try:
        with os.fdopen(read) as said:
            number = said.readline().strip()
        assert number, "Xvfb did not start"
        yield Screen(f":{number}")
    finally:
        running.terminate()
        running.wait(WAIT_S)
