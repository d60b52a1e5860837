"""The settings of mail that leaves, and the control files that follow from them."""

import pytest

from appliance import render
from appliance.layout import Layout
from appliance.settings import Settings
from appliance.settings_sources import SettingsError, load

FILES = ("dane", "mtastscache", "resolvers", "tlsauthorities", "tlsdestinations")


def settings(**variables: str) -> Settings:
    env = {f"POSTERN_{name.upper()}": text for name, text in variables.items()}
    return load({"POSTERN_HOSTNAME": "mail.example.org"} | env).settings


def control(**variables: str) -> dict[str, str]:
    """Return the control files of qmail-remote's TLS."""
    tree = render.control_tree(settings(**variables), [])
    return {name: tree[name].content.decode() for name in FILES if name in tree}


def test_policies_have_their_directory_and_the_rest_is_as_qmail_remote_likes_it() -> None:
    assert control() == {"mtastscache": Layout().sts_policies + "\n"}


def test_each_setting_has_its_file() -> None:
    assert control(
        mta_sts="off",
        dane="on",
        resolvers="192.0.2.53, 2001:DB8:0::53 192.0.2.53",
        tls_destinations="example.org:verify:a.example,b.example; .example.net:require;:may",
        tls_authorities="/etc/authorities.pem",
    ) == {
        "dane": "on\n",
        "resolvers": "192.0.2.53\n2001:db8::53\n",
        "tlsdestinations": "example.org:verify:a.example,b.example\n.example.net:require\n:may\n",
        "tlsauthorities": "/etc/authorities.pem\n",
    }


def test_the_authorities_are_a_path_under_either_name() -> None:
    given = settings(tls_authorities_file="/etc/authorities.pem")
    assert given.tls_authorities == "/etc/authorities.pem"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mta_sts", "testing"),
        ("dane", "maybe"),
        ("resolvers", "ns.example.net"),
        ("resolvers", "192.0.2.53:5353"),
        ("tls_destinations", "example.org"),
        ("tls_destinations", "example.org:always"),
        ("tls_destinations", "example.org:require:mx.example.org"),
        ("tls_destinations", "exa mple.org:require"),
        ("tls_destinations", "example.org:verify;x"),
        ("tls_authorities", "authorities.pem"),
    ],
)
def test_what_makes_no_sense_stops_the_start(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"POSTERN_{name.upper()}"):
        settings(**{name: text})
