"""The report in a real browser, where there is one: no errors, and a display that answers.

A script at the end of the page does what a reader would, and leaves what it saw in the page.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from particleforge.report.build import build_report

from .report_inputs import finish, report_settings, write_report_inputs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
READER = """
<script>
(() => {
  const canvas = document.getElementById("display-canvas");
  const seen = {};
  const changed = (name, act) => {
    const before = canvas.toDataURL();
    const result = act();
    seen[name] = canvas.toDataURL() !== before;
    return result;
  };
  const press = (key) => {
    const event = new KeyboardEvent("keydown", { key, cancelable: true });
    canvas.dispatchEvent(event);
    return event.defaultPrevented;
  };
  const pointer = (type, more) => canvas.dispatchEvent(new PointerEvent(type, more));
  const away = { deltaY: -1, cancelable: true };
  const wheel = () => canvas.dispatchEvent(new WheelEvent("wheel", away));
  const drag = { buttons: 1, movementX: 30, movementY: 10 };
  for (const key of ["ArrowLeft", "ArrowUp", "+", "-", "b", "s", "B", "0"]) {
    changed(key, () => press(key));
  }
  seen.taken = changed("Tab", () => press("Tab"));
  changed("hover", () => pointer("pointermove", { movementX: 30 }));
  canvas.blur();
  changed("wheel of the page", wheel);
  changed("drag", () => { pointer("pointerdown"); pointer("pointermove", drag); });
  seen.focused = document.activeElement === canvas;
  changed("wheel", wheel);
  changed("wheel aside", () => canvas.dispatchEvent(new WheelEvent("wheel", { deltaX: 9 })));
  changed("button", () => document.querySelector("[data-key='b']").click());
  const choice = document.getElementById("display-event");
  seen.events = choice.length;
  changed("event", () => {
    choice.selectedIndex = 1;
    choice.dispatchEvent(new Event("change"));
  });
  changed("print", () => window.dispatchEvent(new Event("beforeprint")));
  changed("printed", () => window.dispatchEvent(new Event("afterprint")));
  seen.label = canvas.getAttribute("aria-label");
  seen.silent = [...document.querySelectorAll("img")].filter((image) => !image.alt).length;
  seen.nameless = [...document.querySelectorAll("button, select")].filter(
    (control) => !(control.ariaLabel || control.textContent.trim())).length;
  seen.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const told = document.createElement("pre");
  told.id = "seen";
  told.textContent = JSON.stringify(seen);
  document.body.append(told);
})();
</script>
"""


def browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page without network; the browser's standard error has the page's console."""
    assert CHROMIUM
    home = page.parent / "browser"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    return subprocess.run(
        [
            *command,
            f"--user-data-dir={home}",
            "--proxy-server=127.0.0.1:9",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=os.environ | {"HOME": str(home)},
    )


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What the reader saw, and what the console has."""
    if not CHROMIUM:
        if os.environ.get("PARTICLEFORGE_REQUIRE_CHROMIUM"):
            pytest.fail("chromium is not installed")
        pytest.skip("chromium is not installed")
    folder = tmp_path_factory.mktemp("browser")
    inputs = write_report_inputs(folder, 30)
    finish(inputs)
    page = folder / "report.html"
    build_report(report_settings(), inputs, page)
    text = page.read_text(encoding="utf-8").replace("</body>", f"{READER}</body>")
    page.write_text(text, encoding="utf-8")
    done = browse(page, "--window-size=1200,900", "--dump-dom")
    (found,) = re.findall(r'<pre id="seen">(.*?)</pre>', done.stdout, re.S)
    told = json.loads(found.replace("&gt;", ">").replace("&amp;", "&"))
    return told, done.stderr


def test_nothing_is_wrong_on_the_console(seen: tuple[dict[str, Any], str]) -> None:
    assert "CONSOLE" not in seen[1]


def test_display_answers_to_keys_drags_and_buttons(seen: tuple[dict[str, Any], str]) -> None:
    told = seen[0]
    assert told["events"] == 3
    acts = (
        "ArrowLeft",
        "ArrowUp",
        "+",
        "-",
        "b",
        "s",
        "B",
        "0",
        "drag",
        "wheel",
        "button",
        "event",
    )
    for act in (*acts, "print", "printed"):
        assert told[act], act
    assert told["focused"]


def test_display_leaves_the_page_what_is_the_pages(seen: tuple[dict[str, Any], str]) -> None:
    told = seen[0]
    assert not (told["taken"] or told["Tab"] or told["hover"] or told["wheel of the page"])
    assert not told["wheel aside"]
    assert told["wide"] <= 0  # nothing reaches beyond the window


def test_what_cannot_be_seen_is_told(seen: tuple[dict[str, Any], str]) -> None:
    told = seen[0]
    assert told["silent"] == told["nameless"] == 0
    assert re.match(
        r"Event display of ttbar, run \d+, event \d+: tracks and clusters \d+ \+ \d+; truth",
        told["label"],
    )
