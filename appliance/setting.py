"""How a setting is described, and the types that several groups of settings have."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from appliance import values

Seconds = Annotated[int, BeforeValidator(values.seconds)]

ON = ("on", "yes", "true", "1")
OFF = ("off", "no", "false", "0")


def _switch(value: object) -> bool:
    word = str(value).strip().lower()
    if word not in ON + OFF:
        raise ValueError("neither on nor off")
    return word in ON


Switch = Annotated[bool, BeforeValidator(_switch)]


def setting(default: Any, takes: str, description: str, **more: Any) -> Any:
    """Describe a setting: its default, what it takes, what it is for.

    Keywords:
        secret: its value is never shown.
        path: the value names a file, so that POSTERN_X_FILE means the same as POSTERN_X.
        shown: how the reference shows a default that depends on other things.
        The rest are limits of pydantic's Field.
    """
    extra = {"takes": takes} | {k: more.pop(k) for k in ("secret", "path", "shown") if k in more}
    return Field(default=default, description=description, json_schema_extra=extra, **more)
