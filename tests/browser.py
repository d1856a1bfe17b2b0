"A headless Chromium that a test drives through a pipe, as its DevTools protocol says"

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
KEYS = {"Enter": ("\r", 13), "Escape": ("", 27), "Tab": ("", 9), " ": (" ", 32)}


class Browser:
    "One page in one process"

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="chromium-")
        read_there, self.write = os.pipe()
        self.read, write_there = os.pipe()
        switches = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        switches += ["--remote-debugging-pipe", f"--user-data-dir={self.folder}"]

        def connect():  # Chromium reads file 3 and writes file 4
            os.dup2(os.dup(read_there), 3)
            os.dup2(os.dup(write_there), 4)

        self.process = subprocess.Popen(
            [CHROMIUM, *switches, "about:blank"],
            close_fds=False,
            preexec_fn=connect,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there), os.close(write_there)
        self.numbers = itertools.count(1)
        self.rest = b""
        self.events = []
        self.session = ""
        [target] = [
            one for one in self.ask("Target.getTargets")["targetInfos"] if one["type"] == "page"
        ]
        answer = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = answer["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def _message(self) -> dict:
        while b"\0" not in self.rest:
            assert select.select([self.read], [], [], 120)[0], "Chromium says nothing"
            part = os.read(self.read, 1 << 20)
            assert part, "Chromium has ended"
            self.rest += part
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def ask(self, method: str, **parameters) -> dict:
        "Call a method of the protocol; events that come meanwhile are kept"
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def open(self, page: Path, anchor: str = "", *, scripts=True, dark=False, width=1280) -> None:
        "Load a file from disk"
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Emulation.setScriptExecutionDisabled", value=not scripts)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        self._go("about:blank")  # so that another anchor of the same file is a new page
        self._go(f"{page.as_uri()}{anchor}")

    def _go(self, url: str) -> None:
        self.events.clear()
        self.ask("Page.navigate", url=url)
        while not any(one.get("method") == "Page.loadEventFired" for one in self.events):
            self.events.append(self._message())

    def run(self, code: str):
        "The value of a JavaScript expression"
        wait = {"returnByValue": True, "awaitPromise": True}
        answer = self.ask("Runtime.evaluate", expression=code, **wait)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, code: str, seconds: float = 60) -> None:
        "Wait until a JavaScript expression is true"
        end = time.monotonic() + seconds
        while not self.run(code):
            assert time.monotonic() < end, f"never true: {code}"
            time.sleep(0.1)

    def press(self, *keys: str) -> None:
        "Press and release keys, one after the other"
        for key in keys:
            text, code = KEYS.get(key, (key, ord(key[0].upper())))
            event = {"key": key, "windowsVirtualKeyCode": code, "text": text}
            self.ask("Input.dispatchKeyEvent", type="keyDown", **event)
            self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def complaints(self) -> list[str]:
        "Errors, blocked scripts and dialogs since the page was opened"
        words = ("Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening")
        return [json.dumps(one) for one in self.events if one.get("method") in words]

    def requests(self) -> list[str]:
        "What the page asked for beyond itself"
        sent = [one for one in self.events if one.get("method") == "Network.requestWillBeSent"]
        urls = [one["params"]["request"]["url"] for one in sent]
        return [url for url in urls if not url.startswith(("file:", "data:"))]

    def picture(self, path: Path, whole: bool = False) -> None:
        "Save what is seen, or the whole page"
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=whole, **self._clip(whole))
        path.write_bytes(base64.b64decode(shot["data"]))

    def _clip(self, whole: bool) -> dict:
        if not whole:
            return {}
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        area = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 12_000)}
        return {"clip": area | {"scale": 1}}

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.read), os.close(self.write)
        shutil.rmtree(self.folder, ignore_errors=True)
