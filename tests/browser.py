"Headless Chromium, driven through its own protocol: what a page loads, logs and shows"

import itertools
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


class Browser:
    "One tab; use it in a `with` block"

    def __enter__(self) -> "Browser":
        import websocket

        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        flags += ["--no-first-run", "--remote-debugging-port=0", "--remote-allow-origins=*"]
        flags += [f"--user-data-dir={self.folder.name}", "about:blank"]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen([CHROMIUM, *flags], stdout=quiet, stderr=quiet)
        self.numbers, self.events = itertools.count(1), []
        [tab] = self._tabs()
        self.socket = websocket.create_connection(tab["webSocketDebuggerUrl"], timeout=60)
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source="localStorage.clear()")
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(20)
        self.folder.cleanup()

    def _tabs(self) -> list[dict]:
        port = Path(self.folder.name) / "DevToolsActivePort"
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if port.exists() and (lines := port.read_text().split()):
                with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json") as answer:
                    tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
                if tabs:
                    return tabs[:1]
            time.sleep(0.1)
        raise TimeoutError("Chromium does not start")

    def call(self, method: str, **params: object) -> dict:
        "Call a method of the protocol; what is reported meanwhile is kept in `events`"
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def run(self, script: str) -> object:
        "The value of an expression on the page"
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script: str, seconds: float = 60) -> None:
        "Wait until an expression is true"
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.1)

    def open(self, url: str, width: int = 1280, dark: bool = False) -> None:
        "Open a page at a width, light or dark"
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait("document.readyState == 'complete'")

    def requests(self) -> list[str]:
        "Addresses that the page asked for"
        sent = [e["params"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent]

    def errors(self) -> list[dict]:
        "Exceptions and errors that the page reported"
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded")
        found = [e["params"] for e in self.events if e["method"] in kinds]
        return [one for one in found if one.get("entry", {}).get("level") in (None, "error")]
