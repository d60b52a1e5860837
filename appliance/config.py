"""``postern config show|reference`` and ``postern render``: the settings, seen."""

import os
import shutil
import sys
from typing import Any

from appliance import render, settings
from appliance.errors import complain
from appliance.layout import Layout
from appliance.settings import Settings
from appliance.settings_sources import MASK, Resolved, SettingsError, load

EXIT_CONFIG = 78
EXIT_USAGE = 100
EXIT_FATAL = 111
MARKER = ".postern-render"

USAGE = """\
usage: postern config show          every setting: its value and where that came from
       postern config reference     every setting as a Markdown table
       postern render DIRECTORY     write DIRECTORY/service and DIRECTORY/control
"""


def main(argv: list[str], env: dict[str, str]) -> int:
    """Run one of the commands in USAGE.

    Returns:
        0; 78 for a wrong setting; 100 for wrong usage; 111 when nothing can be written.
    """
    if any(word in {"-h", "--help"} for word in argv):
        sys.stdout.write(USAGE)
        return 0
    try:
        if argv == ["config", "reference"]:
            sys.stdout.write(reference())
        elif argv == ["config", "show"]:
            sys.stdout.write(show(load(env)))
        elif len(argv) == 2 and argv[0] == "render":
            write(load(env).settings, argv[1])
        else:
            sys.stderr.write(USAGE)
            return EXIT_USAGE
    except SettingsError as error:
        complain(error)
        return EXIT_CONFIG
    except (OSError, render.RenderError) as error:
        complain(error)
        return EXIT_FATAL
    return 0


def show(resolved: Resolved) -> str:
    """Return every setting as ``name = value  # where from``, aligned."""
    rows = []
    for name in settings.names():
        value = getattr(resolved.settings, name)
        place = resolved.places.get(name, "default")
        rows.append((f"{name} = {_shown(name, value, place == 'default')}", place))
    width = max(len(left) for left, _ in rows if len(left) <= 60)
    return "".join(f"{left:{width}}  # {place}\n" for left, place in rows)


def _shown(name: str, value: Any, is_default: bool) -> str:
    extra = settings.extra(name)
    if is_default:
        return f"({extra['shown']})" if "shown" in extra and not value else _text(value)
    return MASK if extra.get("secret") else _text(value)


def _text(value: Any) -> str:
    """Return a value in the form in which the environment takes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return ",".join(f"{key}={number}" for key, number in value.items())
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)


def reference() -> str:
    """Return the table of all settings that is in the documentation."""
    lines = [
        "# Settings",
        "",
        "Made by `postern config reference`. Each setting is an environment variable; or the",
        "same with `_FILE`, which names a file that holds the value; or a line in",
        "`/etc/postern/postern.toml` (another place: `POSTERN_CONFIG`), in small letters and",
        "without `POSTERN_`. The environment wins, and an empty variable counts as not set.",
        "Where the value is a path, `_FILE` changes nothing: it is the path of the file.",
        "",
        "| setting | default | takes | what it is for |",
        "|---|---|---|---|",
    ]
    for name in settings.names():
        field = Settings.model_fields[name]
        extra = settings.extra(name)
        default = extra.get("shown", _text(field.default))
        cells = (f"`{settings.variable(name)}`", default, extra["takes"], field.description)
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    lines += [
        "",
        "Files in `/var/qmail/control` that were mounted there or changed by hand win over",
        "what these settings make of them.",
    ]
    return "\n".join(lines) + "\n"


def write(chosen: Settings, directory: str) -> None:
    """Write service directories and control files, replacing only what was rendered before.

    Raises:
        OSError: a file cannot be written, or one is there that render did not write.
    """
    marker = os.path.join(directory, MARKER)
    mailer = render.installed_mailer(chosen, Layout())
    parts = {
        "service": render.service_tree(chosen, mailer),
        "control": render.control_tree(chosen, chosen.domains),
    }
    for part in parts:
        target = os.path.join(directory, part)
        if not os.path.exists(target):
            continue
        if not os.path.exists(marker):
            raise FileExistsError(f"{target} exists and was not made by postern render")
        shutil.rmtree(target)
    os.makedirs(directory, exist_ok=True)
    with open(marker, "w") as file:
        file.write("service and control are replaced by `postern render`.\n")
    for part, tree in parts.items():
        render.write(tree, os.path.join(directory, part))
