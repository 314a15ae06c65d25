#!/usr/bin/env python3
"""Opens pages of `compress report` in headless Chromium: no message on the console, the slider moves the frames, and screenshots.

    apt-get install chromium
    python -m venv venv && venv/bin/pip install websocket-client
    venv/bin/python scripts/check-report.py PAGE.html [PAGE.html ...] [--out FOLDER]

Screenshots of a desktop, a telephone and dark colours are PAGE-desktop.png, PAGE-phone.png and PAGE-dark.png in the folder. The exit code
is 1 where something is wrong.
"""

import argparse
import base64
import json
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import websocket

# Width, height in pixels and whether colours are dark.
SCREENS = {"desktop": (1280, 900, False), "phone": (390, 844, False), "dark": (1280, 900, True)}
# The number of canvases, their pixels, and what is said of the frame.
STATE = """(() => {
  const pixels = [...document.querySelectorAll('canvas')].map((c) =>
    c.getContext('2d').getImageData(0, 0, c.width, c.height).data.reduce((sum, v, i) => (sum * 31 + v + i) % 1000003, 0));
  return JSON.stringify({ pixels, frame: document.getElementById('frame')?.textContent, wide: document.documentElement.scrollWidth,
    charts: document.querySelectorAll('svg').length, last: document.getElementById('slider')?.max });
})()"""


class Tab:
    """A page in the browser, by the DevTools protocol."""

    def __init__(self, port):
        for _ in range(100):
            try:
                tabs = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json"))
                address = next(t["webSocketDebuggerUrl"] for t in tabs if t["type"] == "page")
                break
            except (OSError, StopIteration):
                time.sleep(0.1)
        else:
            raise SystemExit("chromium does not answer")
        self.socket = websocket.create_connection(address, suppress_origin=True, timeout=30)
        self.sent, self.messages = 0, []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self.sent += 1
        self.socket.send(json.dumps({"id": self.sent, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.sent:
                if "error" in answer:
                    raise SystemExit(f"{method}: {answer['error']}")
                return answer["result"]
            if answer.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                self.messages.append(json.dumps(answer["params"])[:500])

    def run(self, script):
        return self.call("Runtime.evaluate", expression=script)["result"].get("value")

    def state(self):
        return json.loads(self.run(STATE))


def check(tab, page, out):
    wrong = []
    for name, (width, height, dark) in SCREENS.items():
        tab.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=name == "phone")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        tab.call("Emulation.setEmulatedMedia", features=[scheme])
        tab.call("Page.navigate", url=page.resolve().as_uri())
        time.sleep(1.5)
        state = tab.state()
        if state["wide"] > width:
            wrong.append(f"{name}: {state['wide']} pixels wide, expected at most {width}")
        if state["charts"] < 3:
            wrong.append(f"{name}: expected charts, got {state['charts']}")
        if name == "desktop" and state["pixels"]:
            seen = set()
            for frame in (0, int(state["last"]) // 2, int(state["last"])):
                tab.run(f"s = document.getElementById('slider'); s.value = {frame}; s.dispatchEvent(new Event('input'))")
                moved = tab.state()
                seen.add((tuple(moved["pixels"]), moved["frame"]))
                print(f"  frame {frame}: {moved['frame']}")
            if len(seen) != 3:
                wrong.append(f"the slider shows {len(seen)} different frames of three")
            tab.run("document.getElementById('slider').value = 0; document.getElementById('play').click()")
            time.sleep(1)
            if tab.run("document.getElementById('slider').value") == "0":
                wrong.append("play does not move the slider")
            tab.run("document.getElementById('play').click()")
        size = tab.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": width, "height": min(size["height"], 4000), "scale": 1}
        shot = tab.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        (out / f"{page.stem}-{name}.png").write_bytes(base64.b64decode(shot["data"]))
    wrong += [f"console: {m}" for m in tab.messages]
    tab.messages.clear()
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--port", type=int, default=9333)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--remote-debugging-port={args.port}", f"--user-data-dir={profile}"]
        browser = subprocess.Popen(["chromium", *options, "about:blank"], stderr=subprocess.DEVNULL)
        try:
            tab, failed = Tab(args.port), False
            for page in args.pages:
                print(page)
                wrong = check(tab, page, args.out)
                failed |= bool(wrong)
                print("\n".join(f"  {w}" for w in wrong) or "  console clean, slider and play move the frames")
        finally:
            browser.terminate()
            browser.wait()
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
