"""The page at /, in a real browser: a picture is dropped, its poses are drawn."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from websockets.sync.client import connect

from .conftest import encoded
from .server import ask, served

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class Page:
    """A tab of a headless browser, spoken to in its DevTools protocol."""

    def __init__(self, profile: Path) -> None:
        words = [
            "--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0",
            "--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            words.insert(0, "--no-sandbox")
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([str(BROWSER), *words], **silent)
        self._number = 0
        with contextlib.ExitStack() as opened:
            opened.callback(self._end)
            self._socket = opened.enter_context(connect(self._place(profile), max_size=None, proxy=None))
            self._opened = opened.pop_all()

    def _place(self, profile: Path) -> str:
        """Address of the first tab."""
        port_file, end = profile / "DevToolsActivePort", time.monotonic() + 90
        while not (port_file.is_file() and port_file.read_text().strip()):
            assert time.monotonic() < end, "the browser did not start"
            assert self._process.poll() is None, "the browser ended"
            time.sleep(0.05)
        port = port_file.read_text().split()[0]
        targets = json.loads(ask(f"http://127.0.0.1:{port}", "/json/list")[2])
        return next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")

    def _end(self) -> None:
        self._process.kill()
        self._process.wait(30)

    def close(self) -> None:
        self._opened.close()

    def call(self, method: str, **parameters: object) -> dict:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def run(self, script: str) -> object:
        """The value of a script, awaited."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.until("document.getElementById('status') && document.getElementById('status').textContent")

    def until(self, script: str) -> None:
        end = time.monotonic() + 60
        while not self.run(script):
            assert time.monotonic() < end, f"{script}; {self.run('document.body.innerText')}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    opened = Page(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


def state(page):
    return page.run("document.getElementById('status').dataset.state"), page.run(
        "document.getElementById('status').textContent"
    )


def drop(page, content: bytes, name: str = "a.png", kind: str = "image/png") -> None:
    """What a browser does when a file is dropped on the page."""
    text = base64.b64encode(content).decode()
    page.run(
        f"""
        var bytes = Uint8Array.from(atob("{text}"), c => c.charCodeAt(0)), held = new DataTransfer();
        held.items.add(new File([bytes], "{name}", {{type: "{kind}"}}));
        document.getElementById("status").dataset.state = "waiting";
        var event = new DragEvent("drop", {{dataTransfer: held, bubbles: true, cancelable: true}});
        document.getElementById("drop").dispatchEvent(event);
        """
    )


def drawn(page) -> np.ndarray:
    """The canvas, BGR."""
    text = page.run("document.getElementById('picture').toDataURL('image/png')")
    return cv2.imdecode(np.frombuffer(base64.b64decode(text.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)


def test_a_dropped_picture_is_shown_with_its_poses(page, tiny):
    with served(tiny) as (address, service):
        page.open(address)
        assert "no person detector" in state(page)[1]
        assert page.run(
            "document.getElementById('whole').checked && document.getElementById('whole').disabled"
        )
        picture = np.zeros((64, 48, 3), np.uint8)  # dots large enough for their keypoints to count as present
        for channel, (x, y) in enumerate([(6, 8), (24, 30), (30, 48)]):
            picture[y : y + 12, x : x + 12, channel] = 255
        drop(page, cv2.imencode(".png", picture)[1].tobytes())
        page.until("document.getElementById('status').dataset.state === 'done'")
        assert state(page)[1] == "1 person"
        canvas = drawn(page)
        assert canvas.shape == (64, 48, 3)
        poses = service.engine.infer(picture, boxes=[[0, 0, 48, 64]])
        changed = (canvas != picture).any(axis=2)
        assert poses.present.all()
        for x, y in poses.keypoints[0]:
            assert changed[int(y + 0.5), int(x + 0.5)], "a keypoint is drawn where it is"
        assert not changed.all()
        cells = page.run("[...document.querySelectorAll('#people tbody td')].map(cell => cell.textContent)")
        assert cells == ["1", f"{poses.scores[0]:.2f}", f"{poses.conventional_scores[0]:.2f}"]


def test_unusable_files_are_refused_with_a_reason(page, tiny):
    with served(tiny) as (address, _):
        page.open(address)
        drop(page, b"no picture", "a.txt", "text/plain")
        page.until("document.getElementById('status').dataset.state === 'error'")
        assert "must be JPEG or PNG" in state(page)[1]
        drop(page, encoded(4))
        page.until("document.getElementById('status').dataset.state === 'done'")


def test_a_chosen_file_goes_the_same_way(page, tiny, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(encoded(5, ".jpg"))
    with served(tiny) as (address, _):
        page.open(address)
        root = page.call("DOM.getDocument")["root"]["nodeId"]
        node = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        page.call("DOM.setFileInputFiles", nodeId=node, files=[str(tmp_path / "photo.jpg")])
        page.until("document.getElementById('status').dataset.state === 'done'")
        assert drawn(page).shape == (64, 48, 3)


def test_the_page_loads_nothing_from_elsewhere(tiny):
    with served(tiny) as (address, _):
        _, headers, content = ask(address, "/")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert b"http://" not in content
    assert b"https://" not in content
