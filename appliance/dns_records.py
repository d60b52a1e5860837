"""``postern dns [DOMAIN]``: the DNS records that a mail domain should have."""

import sys

from appliance import dkim, store, values
from appliance.layout import Layout
from appliance.settings import Settings
from appliance.settings_sources import SettingsError, load

EXIT_CONFIG = 78
EXIT_USAGE = 100
EXIT_TEMPORARY = 111
USAGE = "usage: postern dns [DOMAIN]\n"


def main(argv: list[str], env: dict[str, str], places: Layout | None = None) -> int:
    """Print the records of one domain, or of every one of ours."""
    places = places or Layout()
    if len(argv) > 2 or any(word.startswith("-") for word in argv[1:]):
        sys.stderr.write(USAGE)
        return EXIT_USAGE
    try:
        settings = load(env).settings
        ours = {*store.load(places).domains, *settings.domains}
        domains = [values.domain(argv[1])] if len(argv) == 2 else sorted(ours)
        printed = [records(settings, domain, signing_keys(places, domain)) for domain in domains]
    except SettingsError as error:
        sys.stderr.write(f"postern: {error}\n")
        return EXIT_CONFIG
    except (store.StoreError, dkim.DkimError) as error:
        sys.stderr.write(f"postern: {error}\n")
        return EXIT_TEMPORARY
    except ValueError as error:
        sys.stderr.write(f"postern: {argv[1]}: {error}\n")
        return EXIT_USAGE
    except OSError as error:
        sys.stderr.write(f"postern: {error.filename}: {error.strerror}\n")
        return EXIT_TEMPORARY
    sys.stdout.write("\n".join(printed))
    return 0


def signing_keys(places: Layout, domain: str) -> list[str]:
    """Return the records of a domain's DKIM keys, of those not in use yet as well.

    Raises:
        DkimError, OSError: a key cannot be read.
    """
    return [dkim.zone_line(places, domain, name) for name in dkim.selectors(places, domain)]


def records(settings: Settings, domain: str, keys: list[str]) -> str:
    """Return the records of a domain as lines of a zone file.

    Args:
        settings: the settings.
        domain: the domain.
        keys: lines for its DKIM keys.

    Sources: MX and address RFC 5321, 5; SPF RFC 7208; DKIM RFC 6376; DMARC RFC 9989;
    service names RFC 6186 and RFC 8314.
    """
    host = settings.hostname
    reports = settings.postmaster or f"postmaster@{domain}"
    lines = [
        f"; {domain}",
        f"{domain}.\tIN MX 10 {host}.",
        f'{domain}.\tIN TXT "v=spf1 mx -all"',
        *keys,
        f'_dmarc.{domain}.\tIN TXT "v=DMARC1; p=quarantine; rua=mailto:{reports}"',
    ]
    for service in ("submission", "submissions", "pop3", "pop3s"):
        if service in settings.active:
            port = settings.port(service)
            lines.append(f"_{service}._tcp.{domain}.\tIN SRV 0 1 {port} {host}.")
    lines += [
        f"; {host} needs an address (A, AAAA), and each address a name (PTR) of {host}.",
        "",
    ]
    return "\n".join(lines)
