"""What people write is read as they mean it, and what means nothing is refused."""

import pytest

from appliance import values


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("a", "a"),
        ("x" * 63 + ".org", "x" * 63 + ".org"),
    ],
)
def test_domain(text: str, name: str) -> None:
    assert values.domain(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a..b",
        "-a.org",
        "a-.org",
        "a b",
        "a_b.org",
        "a/b",
        "a:b",
        "x" * 64,
        "a\nb",
        "é" * 80,
    ]
    + [".".join(["x" * 60] * 5)],
)
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no domain name"):
        values.domain(text)


@pytest.mark.parametrize("text", ["mail", "10.0.0.1", "mail.example.1"])
def test_a_host_name_needs_a_dot_and_is_no_address(text: str) -> None:
    with pytest.raises(ValueError):
        values.full_host_name(text)


@pytest.mark.parametrize("local", ["a", "a.b", "a+b", "a-b", "a_b", "a=b", "1", "-a", "x" * 64])
def test_address(local: str) -> None:
    assert values.address(f"{local.upper()}@Example.org") == f"{local}@example.org"


@pytest.mark.parametrize(
    "text",
    ["", "alice", "@example.org", "alice@", ".a@example.org", "a..b@example.org", "a.@example.org"]
    + ["a/b@example.org", "../a@example.org", "a:b@example.org", "a b@example.org", "a\n@b.org"]
    + ["a\0@example.org", "é@example.org", '"a"@example.org', "a@b@example.org", "x" * 65 + "@b.c"],
)
def test_what_is_unsafe_in_a_path_or_in_users_assign_is_no_address(text: str) -> None:
    with pytest.raises(ValueError):
        values.address(text)


@pytest.mark.parametrize(
    ("text", "number"), [("90", 90), ("90s", 90), ("5m", 300), ("2H", 7200), ("7d", 604800)]
)
def test_seconds(text: str, number: int) -> None:
    assert values.seconds(text) == number
    assert values.seconds(number) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("10", 10), ("1k", 1024), ("50M", 50 << 20), ("1 GiB", 1 << 30), ("2GB", 2 << 30)],
)
def test_size(text: str, number: int) -> None:
    assert values.size(text) == number


@pytest.mark.parametrize("text", ["", "m", "-1", "1.5m", "5x", "1e3", "9" * 20, None, True, []])
def test_what_is_no_number_is_refused(text: object) -> None:
    for reader in (values.seconds, values.size):
        with pytest.raises(ValueError, match="no number"):
            reader(text)


@pytest.mark.parametrize("text", ["0", "::", "[::]", "0.0.0.0", "*"])
def test_every_way_to_say_all_addresses(text: str) -> None:
    assert values.bind_address(text) == "0"


def test_bind_address() -> None:
    assert values.bind_address("[2001:DB8::1]") == "2001:db8::1"
    with pytest.raises(ValueError):
        values.bind_address("eth0")


@pytest.mark.parametrize(
    "text",
    [":relay.example.org", "example.org:", ".example.org:10.0.0.1:2525", "a.org:[2001:db8::1]:25"]
    + [":relay.example.org:587 user pass"],
)
def test_route(text: str) -> None:
    assert values.route(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "relay",
        "relay.example:587",
        "a b:c",
        ":relay:0",
        ":relay:99999",
        ":relay:smtp",
        ":relay:25 user",
    ],
)
def test_what_is_no_route_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        values.route(text)


def test_lists_take_commas_and_blanks() -> None:
    assert values.words("a, b c,,d") == ["a", "b", "c", "d"]
    assert values.lines("a b,\n c d\n") == ["a b", "c d"]
    assert values.words(["a", "b"]) == ["a", "b"]
    with pytest.raises(ValueError, match="no list"):
        values.words(7)


def test_a_command_is_split_as_a_shell_would() -> None:
    assert values.command("checkpassword-pam -s 'my service'") == [
        "checkpassword-pam",
        "-s",
        "my service",
    ]
    for text in ("", "'", "a\0b"):
        with pytest.raises(ValueError):
            values.command(text)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("192.0.2.1", "192.0.2.1/32"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_network(text: str, network: str) -> None:
    assert values.network(text) == network


@pytest.mark.parametrize("text", ["", "192.0.2.1/24", "192.0.2/24", "fd00::/129", "gateway", "1"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        values.network(text)


@pytest.mark.parametrize(
    ("network", "has"),
    [
        ("127.0.0.0/8", True),
        ("0.0.0.0/0", True),
        ("::/0", True),
        ("::1/128", True),
        ("10.0.0.0/8", False),
        ("fd00::/8", False),
    ],
)
def test_loopback_address_in_a_network(network: str, has: bool) -> None:
    assert values.has_loopback(network) is has
