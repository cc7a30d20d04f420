"""What a desktop is made of on this machine, and the box that it runs in."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agenthub.isolation import BoxSpec, Limits, Mount

__all__ = ["PROGRAMS", "SCREEN", "box_spec", "least", "missing"]

PROGRAMS: Mapping[str, str] = {
    "Xvfb": "xvfb",
    "xkbcomp": "x11-xkb-utils",
    "openbox": "openbox",
    "mousepad": "mousepad",
    "galculator": "galculator",
    "pcmanfm": "pcmanfm",
}
"""Programs of a desktop, and the Debian package of each."""
SCREEN = ".display"
"""Folder of the workspace in which the display keeps its screen, for it to be read from outside."""
_SHOWN = ("/usr", "/etc/fonts", "/etc/xdg", "/etc/X11", "/etc/alternatives", "/etc/pcmanfm", "/etc/libfm")
_INSIDE = Path(__file__).parent
_BOOT = """import sys, types
for name, text in {sources!r}:
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, name + ".py", "exec"), module.__dict__)
sys.modules["guest"].main()
"""
_START_S = 60.0
_THEME = """
* { caret-color: currentColor; transition: none; animation: none; }
"""
_SETTINGS = """[Settings]
gtk-theme-name = Adwaita
gtk-icon-theme-name = Adwaita
gtk-font-name = DejaVu Sans 10
gtk-cursor-blink = 0
gtk-enable-animations = 0
gtk-recent-files-enabled = 0
"""
_SETTINGS_2 = """gtk-theme-name="Raleigh"
gtk-font-name="DejaVu Sans 10"
gtk-cursor-blink=0
"""
_MANAGER = """<?xml version="1.0" encoding="UTF-8"?>
<openbox_config xmlns="http://openbox.org/3.4/rc">
<focus><focusNew>yes</focusNew><followMouse>no</followMouse></focus>
<placement><policy>Smart</policy><center>yes</center></placement>
<theme><name>Clearlooks</name><animateIconify>no</animateIconify></theme>
<desktops><number>1</number><popupTime>0</popupTime></desktops>
<keyboard>
<keybind key="A-F4"><action name="Close"/></keybind>
<keybind key="A-Tab"><action name="NextWindow"><interactive>no</interactive><dialog>none</dialog>
<finalactions><action name="Focus"/><action name="Raise"/></finalactions></action></keybind>
</keyboard>
<mouse>
<context name="Client">
<mousebind button="Left" action="Press"><action name="Focus"/><action name="Raise"/></mousebind>
</context>
<context name="Titlebar">
<mousebind button="Left" action="Drag"><action name="Move"/></mousebind>
<mousebind button="Left" action="DoubleClick"><action name="ToggleMaximize"/></mousebind>
</context>
<context name="Close"><mousebind button="Left" action="Click"><action name="Close"/></mousebind></context>
<context name="Maximize"><mousebind button="Left" action="Click"><action name="ToggleMaximize"/></mousebind></context>
<context name="Iconify"><mousebind button="Left" action="Click"><action name="Iconify"/></mousebind></context>
</mouse>
<applications><application class="*"><focus>yes</focus></application></applications>
</openbox_config>
"""


def missing() -> dict[str, str]:
    """The programs that are not here, with the Debian package of each."""
    return {name: package for name, package in PROGRAMS.items() if shutil.which(name) is None}


def least(limits: Limits) -> Limits:
    """The limits, raised to what a desktop needs."""
    return Limits(
        memory_mb=max(limits.memory_mb, 256),
        pids=max(limits.pids, 96),
        cpus=limits.cpus,
        disk_mb=max(limits.disk_mb, 64),
        files=limits.files,
        open_files=max(limits.open_files, 256),
        output_bytes=limits.output_bytes,
    )


def box_spec(limits: Limits, width: int, height: int) -> BoxSpec:
    """A box with a display of that size and a window manager."""
    sources = [(name, (_INSIDE / f"{name}.py").read_text(encoding="utf-8")) for name in ("x11", "guest")]
    argv = (
        os.path.realpath(sys.executable),
        "-I",
        "-S",
        "-c",
        _BOOT.format(sources=sources),
        json.dumps(_settings(width, height)),
    )
    mounts = tuple(Mount(source=path, target=path) for path in _SHOWN if os.path.exists(path))
    return BoxSpec(image="python", argv=argv, mounts=mounts, limits=least(limits))


def _settings(width: int, height: int) -> dict[str, Any]:
    home = "/tmp/home"
    return {
        "width": width,
        "height": height,
        "screen_folder": f"/workspace/{SCREEN}",
        "seconds": _START_S,
        "manager": ["openbox", "--config-file", f"{home}/.config/openbox/rc.xml"],
        "files": {
            f"{home}/.config/gtk-3.0/settings.ini": _SETTINGS,
            f"{home}/.config/gtk-3.0/gtk.css": _THEME,
            f"{home}/.gtkrc-2.0": _SETTINGS_2,
            f"{home}/.config/openbox/rc.xml": _MANAGER,
        },
        "env": {
            "DISPLAY": ":0",
            "GDK_BACKEND": "x11",
            "GSETTINGS_BACKEND": "memory",
            "HOME": home,
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "NO_AT_BRIDGE": "1",
            "TZ": "UTC",
            "XDG_RUNTIME_DIR": "/tmp",
        },
    }
