"""Neuroglancer in a headless Chromium: what it says about a layer, and what it draws.

The page is the client that the `neuroglancer` package ships, unchanged; it talks to this process through the
package's own server, so no driver is needed: Chromium is started with the address of the page and left alone.
WebGL is drawn by the CPU (SwiftShader). Every wait has an end.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest

_PATIENCE_S = 60
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root in a container has no user namespaces; the page is ours
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--force-device-scale-factor=1",
    "--no-first-run",
    "--no-proxy-server",
    "--window-size=800,600",
)


def chromium_or_skip() -> str:
    """Return the program; skip the test, with the reason, where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (program := shutil.which(name)) is not None:
            return program
    pytest.skip("no chromium: install it (apt-get install chromium) to let neuroglancer judge")


@dataclass(frozen=True)
class Page:
    """A neuroglancer page that a browser shows.

    Attributes:
        viewer: the `neuroglancer.Viewer`.
        log: what the browser says.
    """

    viewer: Any
    log: Path

    def seen(self) -> tuple[Any, np.ndarray]:
        """Return the state that the page is in, and how it looks once everything has arrived, uint8 [Y, X, 3]."""
        reply = self._reply()
        picture: np.ndarray = iio.imread(io.BytesIO(reply.screenshot.image))[..., :3]
        return reply.viewer_state, picture

    def bounds(self, layer: str) -> dict[str, tuple[float, int, int]]:
        """Return (voxel size in nm, first voxel, voxel after the last) by name of the dimension."""
        said = self.viewer.volume_info(layer).result(_PATIENCE_S)
        space = said.dimensions
        assert set(space.units) == {"m"}
        edges = zip(space.names, space.scales, said.lower_bound, said.upper_bound, strict=True)
        return {name: (float(size) * 1e9, int(low), int(high)) for name, size, low, high in edges}

    def draw(
        self, layout: str, position: dict[str, float], size: tuple[int, int], pixels_per_voxel: float
    ) -> np.ndarray:
        """Return a cross-section as it is drawn once everything has arrived.

        Args:
            layout: `xy` (x right, y down), `xz` (x right, z down) or `yz` (z left, y down).
            position: voxels, by dimension; it lies in the centre of the picture.
            size: pixels, (height, width).
            pixels_per_voxel: along the dimension with the smallest voxels.

        Returns:
            uint8 [height, width, 3].
        """
        with self.viewer.config_state.txn() as config:
            config.show_ui_controls = config.show_panel_borders = False
            config.viewer_size = size[::-1]
        with self.viewer.txn() as state:
            state.layout = layout
            state.position = [position[name] for name in state.dimensions.names]
            state.cross_section_scale = 1 / pixels_per_voxel
            state.show_axis_lines = state.show_scale_bar = state.show_default_annotations = False
            state.cross_section_background_color = "#000000"
        # A page may not have taken its new size when it draws.
        for _ in range(5):
            reply = self._reply().screenshot
            if (reply.height, reply.width) == size:
                break
        picture: np.ndarray = iio.imread(io.BytesIO(reply.image))[..., :3]
        assert picture.shape == (*size, 3)
        return picture

    def _reply(self) -> Any:
        replies: list[Any] = []
        arrived = threading.Event()
        self.viewer.async_screenshot(lambda said: (replies.append(said), arrived.set()))
        if not arrived.wait(_PATIENCE_S):
            raise TimeoutError(f"the page sent no picture; the browser said: {self.log.read_text()[-2000:]}")
        return replies[0]


@contextmanager
def shown(program: str, viewer: Any, profile: Path, address: str | None = None) -> Iterator[Page]:
    """Show the page of a viewer, or an address that leads there, in a browser of its own until the block ends."""
    log = profile.with_suffix(".log")
    with log.open("wb") as said:
        command: Sequence[str] = [
            program,
            *_FLAGS,
            f"--user-data-dir={profile}",
            address or viewer.get_viewer_url(),
        ]
        browser = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
    try:
        yield Page(viewer, log)
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait(_PATIENCE_S)
