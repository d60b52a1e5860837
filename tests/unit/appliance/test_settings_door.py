"""The settings of the MX's door, and what becomes of them."""

import re

import pytest

from appliance import render, settings, values
from appliance.settings import Settings
from appliance.settings_sources import SettingsError, load


def door(**variables: str) -> Settings:
    env = {f"POSTERN_{name.upper()}": text for name, text in variables.items()}
    return load({"POSTERN_HOSTNAME": "mail.example.org"} | env).settings


def chain(**variables: str) -> str:
    """Return the part of mx/run that follows the server, in one line."""
    script = render.service_tree(door(**variables))["mx/run"].content.decode()
    return re.sub(r"\s+", " ", script.partition("0 25\n")[2]).strip()


def variables(**given: str) -> dict[str, str]:
    """Return the environment of mx as far as it is about the door."""
    tree = render.service_tree(door(**given))
    return {
        path.removeprefix("mx/env/"): file.content.decode().strip()
        for path, file in tree.items()
        if path.startswith("mx/env/GREET")
    }


def test_the_door_is_open_unless_told_otherwise() -> None:
    assert chain() == "fixsmtpio qmail-smtpd"
    assert variables() == {}


@pytest.mark.parametrize("server", ["postern", "s6", "sslserver", "tcpserver"])
def test_the_door_comes_right_before_the_proxy(server: str) -> None:
    given = {"greet_delay": "3", "dnsbl": "bl.example", "ucspi": server}
    script = render.service_tree(door(**given))["mx/run"].content.decode()
    assert re.search(r"\ngreetdelay\nrblsmtpd -b [^\n]*\n  -r bl.example\nfixsmtpio\n", script)


def test_no_other_service_has_one() -> None:
    tree = render.service_tree(door(greet_delay="3", dnsbl="bl.example"))
    named = {path for path, file in tree.items() if b"rblsmtpd" in file.content}
    named |= {path for path in tree if "GREETDELAY" in path}
    assert {path.partition("/")[0] for path in named} == {"mx"}


def test_good_senders_are_asked_for_first_and_nobody_asks_for_this_host() -> None:
    given = {
        "dnsbl": "bl.example=127.0.0.[2..11], Other.Example",
        "dnsbl_allow": "192.0.2.0/24,good.example=127.0.[0..255].3,2001:db8::/32,::1/128",
    }
    assert chain(**given) == (
        "rblsmtpd -b -n 127.0.0.0/8,::1/128,192.0.2.0/24,2001:db8::/32 "
        '-a "good.example=127.0.[0..255].3" '
        '-r "bl.example=127.0.0.[2..11]" -r other.example fixsmtpio qmail-smtpd'
    )


def test_who_is_allowed_need_not_wait_and_this_host_neither() -> None:
    assert variables(greet_delay="5s", dnsbl_allow="192.0.2.1 good.example") == {
        "GREETDELAY": "5",
        "GREETDELAY_ALLOW": "127.0.0.0/8,::1/128,192.0.2.1/32",
    }
    assert chain(greet_delay="5") == "greetdelay fixsmtpio qmail-smtpd"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dnsbl", "a..b"),
        ("dnsbl", "bl.example:text"),
        ("dnsbl", "bl.example=127.0.0"),
        ("dnsbl_allow", "192.0.2.1/8"),
        ("dnsbl_allow", "999.0.2.0/24"),
        ("greet_delay", "121"),
        ("greet_delay", "-1"),
    ],
)
def test_what_is_wrong_is_named(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"^POSTERN_{name.upper()}: got '{re.escape(text)}'"):
        door(**{name: text})


@pytest.mark.parametrize(
    "codes", ["127.0.0.2", "127.0.0.[2..11]", "127.0.[0..255].[1;3..4]", "[0..255].0.0.0"]
)
def test_codes_are_those_that_rblsmtpd_takes(codes: str) -> None:
    assert values.dns_list(f"BL.example={codes}") == f"bl.example={codes}"


@pytest.mark.parametrize(
    "codes",
    ["", "x", "127.0.0", "127.0.0.256", "127.0.0.[4..2]", "127.0.0.[]", "127.0.0.[2..3..4]",
     "127.0.0.[2;;3]", "127.0.0.[..]", "127.0.0.2 ", "127.0.0.2.3"],
)  # fmt: skip
def test_other_codes_are_refused(codes: str) -> None:
    with pytest.raises(ValueError, match="no codes such as"):
        values.dns_list(f"bl.example={codes}")


def test_every_setting_is_in_the_reference_once_and_the_host_comes_first() -> None:
    names = settings.names()
    assert sorted(names) == sorted(Settings.model_fields)
    assert names[:2] == ["hostname", "domains"]
