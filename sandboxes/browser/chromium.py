"""Where Chromium is on this machine, and how it is started in a box."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from agenthub.errors import UserError
from agenthub.isolation import BoxSpec, Limits, Mount

__all__ = ["VARIABLE", "box_spec", "find", "least"]

VARIABLE = "AGENTHUB_CHROMIUM"
"""Environment variable that names the program, where it is not where Debian has it."""
_PLACES = (
    "/usr/lib/chromium/chromium-headless-shell",
    "/usr/lib/chromium/chromium",
    "/usr/lib/chromium-browser/chromium-browser",
    "/opt/google/chrome/chrome",
)
_SHOWN = ("/etc/fonts", "/usr/share/fonts", "/usr/share/fontconfig")
# The control socket is descriptor 3 of a box; Chromium reads its orders there and answers on 4.
_LAUNCH = "import os,sys\nos.dup2(3,4)\nos.execv(sys.argv[1],sys.argv[1:])"
_OFF = (
    "AutofillServerCommunication,BackForwardCache,DestroyProfileOnBrowserClose,GlobalMediaControls,HttpsUpgrades,"
    "IsolateOrigins,MediaRouter,OptimizationHints,PaintHolding,Prerender2,RenderDocument,Translate,site-per-process"
)
# --no-sandbox: the box is the sandbox. Frames of other origins stay in their page's process, so that a page is one.
_FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--no-first-run",
    "--user-data-dir=/tmp/profile",
    "--disable-gpu",
    "--in-process-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-field-trial-config",
    "--disable-hang-monitor",
    "--disable-ipc-flooding-protection",
    "--disable-popup-blocking",
    "--disable-site-isolation-trials",
    "--disable-smooth-scrolling",
    "--disable-sync",
    "--font-render-hinting=none",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    # A script that fills its heap ends its own page, long before the box is full.
    "--js-flags=--max-old-space-size=512",
    "--log-level=3",
    "--metrics-recording-only",
    "--mute-audio",
    "--password-store=basic",
    "--use-mock-keychain",
    f"--disable-features={_OFF}",
    "about:blank",
)
_LEAST = {"memory_mb": 1024, "pids": 512, "disk_mb": 128, "files": 16_384, "open_files": 4096}


def find(environment: Mapping[str, str] = os.environ) -> str:
    """Path of the program.

    Raises:
        UserError: there is none; says how to get one.
    """
    named = environment.get(VARIABLE)
    if named:
        if not Path(named).is_file():
            raise UserError(f"{VARIABLE} is {named!r}, and there is no such file")
        return os.path.realpath(named)
    for place in _PLACES:
        if os.path.isfile(place):
            return place
    raise UserError(
        f"this machine has no Chromium: apt-get install chromium-headless-shell, or set {VARIABLE} to its program"
    )


def least(limits: Limits) -> Limits:
    """These limits, raised to what a Chromium with one page cannot do without."""
    values = {name: max(getattr(limits, name), value) for name, value in _LEAST.items()}
    return Limits(**values, cpus=max(1.0, limits.cpus), output_bytes=limits.output_bytes)


def box_spec(limits: Limits) -> BoxSpec:
    """A box with Chromium in it, that takes its orders (DevTools protocol, each ended by a zero byte) on its socket.

    Raises:
        UserError: as `find` does.
    """
    program = find()
    shown = (os.path.dirname(program), *(path for path in _SHOWN if os.path.isdir(path)))
    return BoxSpec(
        image="python",
        argv=(os.path.realpath(sys.executable), "-I", "-S", "-c", _LAUNCH, program, *_FLAGS),
        mounts=tuple(Mount(source=path, target=path) for path in shown),
        limits=limits,
    )
