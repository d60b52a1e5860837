"""Read the settings from where they are, and say clearly what is wrong with them."""

import difflib
import re
import socket
import tomllib
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from appliance import settings
from appliance.errors import ApplianceError
from appliance.settings import Settings

PREFIX = "POSTERN_"
CONFIG_VARIABLE = "POSTERN_CONFIG"
DEFAULT_CONFIG = "/etc/postern/postern.toml"
FILE_LIMIT = 65536  # bytes of a file that holds a setting
MASK = "********"
DERIVED = "hostname"  # the place of the domains that nobody set

# Kubernetes tells every pod of every service of the namespace; one that is named
# "postern" or "postern-mx" must not look like a mistyped setting.
SERVICE_LINK = re.compile(
    r"POSTERN(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)\Z"
)
SERVICE_LINK_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


class SettingsError(ApplianceError):
    """The settings are wrong; the text is one line for each that is."""


class Layer(NamedTuple):
    """Settings from one source: name -> value, and name -> where that was."""

    given: dict[str, Any]
    places: dict[str, str]


class Resolved(NamedTuple):
    """The settings, and for each where its value came from."""

    settings: Settings
    places: dict[str, str]


def load(env: dict[str, str]) -> Resolved:
    """Return the settings that env and the files it names make.

    Raises:
        SettingsError: something is wrong or missing.
    """
    environment = read_environment(env)
    toml = read_toml(env.get(CONFIG_VARIABLE) or None)
    derived = Layer({}, {})
    layers = (environment, toml, derived)
    places = derived.places | toml.places | environment.places
    if not any("hostname" in layer.given for layer in layers):
        derived.given["hostname"] = _own_host_name()
        places["hostname"] = "the container's host name"
    if not any("domains" in layer.given for layer in layers):
        host = next(layer.given["hostname"] for layer in layers if "hostname" in layer.given)
        if isinstance(host, str):
            derived.given["domains"] = default_domain(host)
            places["domains"] = DERIVED
    return Resolved(_validated(layers, places), places)


def default_domain(hostname: str) -> str:
    """Return the mail domain of a host: its name without the first label, if that has a dot."""
    _, _, parent = hostname.strip().rstrip(".").partition(".")
    return parent if "." in parent else hostname


def read_environment(env: dict[str, str]) -> Layer:
    """Return the settings in the environment, directly or by the files that it names.

    Raises:
        SettingsError: an unknown variable, a setting given twice, a file that cannot be read.
    """
    known = {settings.variable(name): name for name in Settings.model_fields}
    layer = Layer({}, {})
    for variable in sorted(name for name in env if name.startswith(PREFIX)):
        if variable == CONFIG_VARIABLE or _is_service_link(variable, env[variable]):
            continue
        name = known.get(variable) or known.get(variable.removesuffix("_FILE"))
        if name is None:
            raise SettingsError(f"{variable}: no such setting{_hint(variable, known)}")
        if not env[variable]:
            continue  # compose passes "" for what .env leaves out
        if name in layer.given:
            raise SettingsError(f"{variable}: given twice, also as {layer.places[name]}")
        from_file = variable not in known and not settings.extra(name).get("path")
        layer.given[name] = _read_value(variable, env) if from_file else env[variable]
        layer.places[name] = f"{variable} ({env[variable]})" if from_file else variable
    return layer


def read_toml(path: str | None) -> Layer:
    """Return the settings in the file at path; None is the default place, where none need be.

    Raises:
        SettingsError: the file cannot be read, is no TOML, or has an unknown setting.
    """
    place = path or DEFAULT_CONFIG
    try:
        with open(place, "rb") as file:
            given = tomllib.load(file)
    except FileNotFoundError:
        if path is None:
            return Layer({}, {})
        raise SettingsError(f"{CONFIG_VARIABLE}: no file {place}") from None
    except OSError as error:
        raise SettingsError(f"{place}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{place}: not TOML: {error}") from error
    for name in given:
        if name not in Settings.model_fields:
            raise SettingsError(
                f"{place}: {name}: no such setting{_hint(name, Settings.model_fields)}"
            )
    return Layer(given, dict.fromkeys(given, place))


class _Source(PydanticBaseSettingsSource):
    """One layer, in the form in which pydantic-settings takes it."""

    def __init__(self, settings_class: type[BaseSettings], layer: Layer) -> None:
        super().__init__(settings_class)
        self.layer = layer

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self.layer.given.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self.layer.given


def _validated(layers: tuple[Layer, ...], places: dict[str, str]) -> Settings:
    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(_Source(settings_cls, layer) for layer in layers)

    try:
        return Layered()
    except ValidationError as error:
        given = {key: value for layer in reversed(layers) for key, value in layer.given.items()}
        # What follows from a wrong host name is not what the person has to change.
        own = [d for d in error.errors() if not _is_derived(d, places)]
        told = dict.fromkeys(_told(detail, given, places) for detail in own)
        raise SettingsError("\n".join(told)) from None


def _is_derived(detail: Any, places: dict[str, str]) -> bool:
    return bool(detail["loc"]) and places.get(detail["loc"][0]) == DERIVED


def _told(detail: Any, given: dict[str, Any], places: dict[str, str]) -> str:
    """Return one line about a wrong setting: its name, what it got, what it takes."""
    if not detail["loc"]:
        return str(detail["msg"]).removeprefix("Value error, ")
    name = str(detail["loc"][0])
    takes = settings.extra(name)["takes"]
    if name == "hostname" and name not in given:
        return f"{settings.variable(name)}: not set; it takes {takes}"
    place = places.get(name, settings.variable(name))
    label = place if place.startswith(PREFIX) else f"{name} ({place})"
    got = MASK if settings.extra(name).get("secret") else repr(given.get(name))
    reason = str(detail["ctx"]["error"]) if "error" in detail.get("ctx", {}) else detail["msg"]
    return f"{label}: got {got} ({reason}); it takes {takes}"


def _read_value(variable: str, env: dict[str, str]) -> str:
    """Return what a file holds that is named by variable, without the last line end."""
    try:
        with open(env[variable], "rb") as file:
            content = file.read(FILE_LIMIT + 1)
        if len(content) > FILE_LIMIT:
            raise SettingsError(f"{variable}: {env[variable]}: longer than {FILE_LIMIT} bytes")
        return content.decode().rstrip("\n")
    except OSError as error:
        raise SettingsError(f"{variable}: {env[variable]}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise SettingsError(f"{variable}: {env[variable]}: not UTF-8 text") from None


def _own_host_name() -> str:
    """Return the container's host name, when it is a full one.

    Raises:
        SettingsError: it is not.
    """
    name = socket.gethostname()
    if "." not in name:
        raise SettingsError(
            f"{settings.variable('hostname')}: not set, and the container's host name "
            f"({name}) has no dot; it takes {settings.extra('hostname')['takes']}"
        )
    return name


def _is_service_link(variable: str, value: str) -> bool:
    if variable.endswith("_PORT") and SERVICE_LINK_ADDRESS.match(value):
        return True
    return SERVICE_LINK.match(variable) is not None


def _hint(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
