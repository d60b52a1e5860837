"""Settings of message authentication."""

import pytest

from appliance.settings_sources import SettingsError, load

NAMED = {"POSTERN_HOSTNAME": "mail.example.org"}


@pytest.mark.parametrize(
    ("text", "algorithms"),
    [
        ("off", ()),
        ("no", ()),
        ("rsa", ("rsa",)),
        ("ed25519,rsa", ("rsa", "ed25519")),
        ("rsa rsa", ("rsa",)),
    ],
)
def test_algorithms(text: str, algorithms: tuple[str, ...]) -> None:
    assert load(NAMED | {"POSTERN_DKIM": text}).settings.dkim == algorithms


def test_defaults() -> None:
    settings = load(NAMED).settings
    assert settings.dkim == ("rsa",)
    assert settings.mail_authentication == "report"
    assert settings.mail_authentication_timeout == 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"POSTERN_DKIM": "dsa"},
        {"POSTERN_DKIM": "rsa,off"},
        {"POSTERN_MAIL_AUTHENTICATION": "on"},
        {"POSTERN_MAIL_AUTHENTICATION_TIMEOUT": "0"},
        {"POSTERN_MAIL_AUTHENTICATION_TIMEOUT": "2m"},
    ],
)
def test_wrong_values(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        load(NAMED | wrong)
