"""Mail before the real clamd and rspamd, Debian's, in a container of their own."""

import os
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.models.containers import Container
from harness import appliance as harness
from harness import mail, wait
from harness.another import another
from harness.appliance import Appliance
from harness.clients import SUBMITTERS, Account, ClientError, run

HERE = Path(__file__).parent
VIRUS = b"postern-test-virus"  # as in virus.ndb
# rspamd's own marks for testing; which verdict depends on the first letter.
GTUBE = b"JS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
SOCKETS = ["cat", "/proc/net/tcp"]
LISTENING = (b":0CEE 00000000:0000 0A", b":2C45 00000000:0000 0A")  # 3310, 11333


@pytest.fixture(scope="module")
def scanners(appliance: Appliance, docker_compose_project_name: str) -> Iterator[Container]:
    """A container with clamd and rspamd on the appliance's network."""
    tag = f"{docker_compose_project_name}-scanners"
    base = os.environ.get("BASE_IMAGE", "postern-base:trixie")
    run(
        ["env", "DOCKER_BUILDKIT=0", "docker", "build", "--force-rm", "-q", "-t", tag]
        + ["--build-arg", f"BASE_IMAGE={base}", str(HERE)],
        seconds=600,
    )
    client = harness.client()
    network = next(iter(appliance.container.attrs["NetworkSettings"]["Networks"]))
    made = client.containers.create(tag, network=network)
    try:
        made.start()
        wait.until(
            "the scanners",
            lambda: all(one in made.exec_run(SOCKETS).output for one in LISTENING),
            seconds=90,
        )
        made.reload()
        yield made
    finally:
        made.remove(force=True, v=True)
        client.close()
        subprocess.run(
            ["docker", "image", "rm", "--no-prune", tag], check=True, capture_output=True
        )


@pytest.fixture(scope="module")
def scanned(appliance: Appliance, scanners: Container) -> Iterator[Appliance]:
    """An appliance whose mail is scanned."""
    (network,) = scanners.attrs["NetworkSettings"]["Networks"].values()
    address = network["IPAddress"]
    with another(
        appliance,
        POSTERN_VIRUS_SCANNER=f"clamd:{address}:3310",
        POSTERN_SPAM_SCANNER=f"rspamd:http://{address}:11333",
        POSTERN_MAIL_AUTHENTICATION="off",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def recipient(scanned: Appliance) -> Account:
    """Somebody there."""
    return scanned.add_account()


def bring(scanned: Appliance, recipient: Account, body: bytes, head: bytes = b"") -> None:
    """Bring a message from outside."""
    raw = head + mail.compose("a@other.example", recipient.address).raw + body + b"\r\n"
    at = scanned.endpoint
    with smtplib.SMTP(at.host, at.ports["mx"], "client.example", timeout=60) as client:
        client.sendmail("a@other.example", [recipient.address], raw)


def arrived(scanned: Appliance, recipient: Account) -> str:
    """Return the only message of an account as text, and remove it."""
    home = "/home/{1}/{0}".format(*recipient.address.split("@"))
    uid = scanned.run(["stat", "-c", "%u", home])[1].strip()
    look = f"cd {home}/Maildir/new && ls | grep -q . && cat * && rm *"

    def found() -> str | None:
        status, printed = scanned.run(["sh", "-c", look], user=f"{uid}:{uid}")
        return None if status else printed

    return wait.until("the message", found)


def refusal(scanned: Appliance, recipient: Account, body: bytes) -> tuple[int, bytes]:
    """Return the answer to a message from outside that is refused."""
    with pytest.raises(smtplib.SMTPDataError) as refused:
        bring(scanned, recipient, body)
    text = refused.value.smtp_error
    return refused.value.smtp_code, text if isinstance(text, bytes) else text.encode()


def test_good_mail_arrives_with_its_score(scanned: Appliance, recipient: Account) -> None:
    bring(scanned, recipient, b"", b"X-Spam: No\r\n")
    got = arrived(scanned, recipient)
    assert got.count("X-Spam-Score: 0.00 / 15.00\n") == 1
    assert "X-Spam:" not in got


def test_a_virus_is_refused_by_its_name(scanned: Appliance, recipient: Account) -> None:
    code, text = refusal(scanned, recipient, b"a " + VIRUS)
    assert code == 554
    assert b"Postern.Test.Virus" in text


def test_a_users_virus_is_refused_as_well(
    scanned: Appliance, recipient: Account, tmp_path: Path
) -> None:
    message = mail.compose(recipient.address, recipient.address)
    with pytest.raises(ClientError, match=r"Postern\.Test\.Virus"):
        SUBMITTERS["smtplib-starttls"](
            scanned.endpoint,
            recipient,
            message._replace(raw=message.raw + VIRUS + b"\r\n"),
            recipient.address,
            tmp_path,
        )


def test_spam_is_refused_in_the_scanners_words(scanned: Appliance, recipient: Account) -> None:
    assert refusal(scanned, recipient, b"X" + GTUBE) == (554, b"Gtube pattern")


def test_what_may_be_spam_is_marked(scanned: Appliance, recipient: Account) -> None:
    bring(scanned, recipient, b"Y" + GTUBE)
    assert "X-Spam: Yes\n" in arrived(scanned, recipient)


def test_what_is_too_large_to_be_scanned_is_refused(scanned: Appliance, recipient: Account) -> None:
    code, text = refusal(scanned, recipient, (b"x" * 70 + b"\r\n") * 30_000)
    assert code == 554
    assert b"too large" in text


def test_while_a_scanner_is_away_mail_waits(
    scanned: Appliance, scanners: Container, recipient: Account
) -> None:
    scanners.exec_run(["pkill", "rspamd"])
    wait.until("the end of rspamd", lambda: LISTENING[1] not in scanners.exec_run(SOCKETS).output)
    assert refusal(scanned, recipient, b"")[0] == 451
