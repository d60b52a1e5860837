"""The manual pages: one for each program, well formed, and true as far as a test can tell."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = ROOT / "docs/man"
SOURCES = ("ucspi", "acceptutils", "pyqmail", "appliance")

with open(ROOT / "pyproject.toml", "rb") as file:
    PROGRAMS = tomllib.load(file)["project"]["entry-points"]["acceptutils.programs"]

ALIAS = re.compile(r"\.so man8/([\w-]+)\.8\n")  # the whole of a page that is told elsewhere
REQUIRED = ("NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "SEE ALSO")
# Those that a page has come in this order; others, of its own, may stand anywhere between.
ORDER = (
    *("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "ENVIRONMENT", "FILES", "EXIT STATUS"),
    *("EXAMPLES", "DIAGNOSTICS", "SEE ALSO", "HISTORY", "DIFFERENCES"),
)
# Pages of others that ours may send the reader to.
ELSEWHERE = {"crypt(3)", "flock(2)", "fnmatch(3)", "s6-svscan(8)", "s6-ucspitlsd(8)"}
# Names that the code puts together: postern's settings, and QMAIL before a control file's.
COMPOSED = re.compile(r"POSTERN_|SSL_$|QMAIL(DEFAULTHOST|DEFAULTDOMAIN|PLUSDOMAIN|IDHOST)$")

MACRO = re.compile(r"^\.([A-Z][a-z]\w?)\b ?(.*)$", re.MULTILINE)
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")


class Page:
    """What is looked at of one page."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self.text = path.read_text("ascii")
        self.macros = [(found[1], found[2]) for found in MACRO.finditer(self.text)]
        parts = re.split(r"^\.Sh (.*)\n", self.text, flags=re.MULTILINE)
        self.sections = list(zip(parts[1::2], parts[2::2], strict=True))

    def section(self, title: str) -> str:
        return "".join(text for name, text in self.sections if name == title)

    def arguments(self, macro: str) -> list[str]:
        return [rest for name, rest in self.macros if name == macro]

    def references(self, text: str) -> list[str]:
        found = [rest.split() for name, rest in MACRO.findall(text) if name == "Xr"]
        return [f"{words[0]}({words[1]})" for words in found]


def letters(text: str) -> set[str]:
    """Return the options that are marked in text: letters, and words behind two dashes."""
    found: set[str] = set()
    for name, rest in MACRO.findall(text):
        flag = False
        for word in [name, *rest.split()]:
            if word == "Fl" or MACRO.match("." + word):
                flag = word == "Fl"
            elif flag and word.startswith("-"):
                found |= {word[1:]} - {""}
            elif flag:
                found |= set(word) - set(",|.")
    return found


def aliased(path: Path) -> str | None:
    match = ALIAS.fullmatch(path.read_text("ascii"))
    return match[1] if match else None


PATHS = sorted(PAGES.glob("*.8"))
WHOLE = [path for path in PATHS if aliased(path) is None]


@pytest.fixture(params=WHOLE, ids=lambda path: path.stem)
def page(request: pytest.FixtureRequest) -> Page:
    return Page(request.param)


@pytest.fixture(scope="module")
def code() -> str:
    return "".join(path.read_text() for room in SOURCES for path in (ROOT / room).rglob("*.py"))


def test_every_program_has_a_page_and_every_page_a_program() -> None:
    assert {path.stem for path in PATHS} == set(PROGRAMS)
    assert sorted(path.name for path in PAGES.iterdir()) == [path.name for path in PATHS]


@pytest.mark.parametrize("path", [p for p in PATHS if p not in WHOLE], ids=lambda p: p.stem)
def test_a_page_that_refers_to_another_is_told_there(path: Path) -> None:
    other = aliased(path)
    assert other is not None
    assert aliased(PAGES / f"{other}.8") is None
    names = Page(PAGES / f"{other}.8").section("NAME")
    assert f".Nm {path.stem}\n" in names.replace(" ,", "")


def test_name_and_section_are_those_of_the_file(page: Page) -> None:
    assert page.arguments("Dt") == [f"{page.name.upper()} 8"]
    assert re.match(r"\.Dd \w+ \d+, \d{4}\n\.Dt .*\n\.Os\n\.Sh NAME\n", page.text)
    names = page.section("NAME").splitlines()
    assert names[0].removesuffix(" ,") == f".Nm {page.name}"
    assert names[-1].startswith(".Nd ")


def test_sections_are_complete_and_in_order(page: Page) -> None:
    titles = [title for title, _ in page.sections]
    assert len(set(titles)) == len(titles)
    assert set(REQUIRED) <= set(titles)
    known = [title for title in titles if title in ORDER]
    assert known == sorted(known, key=ORDER.index)


def test_lists_and_displays_are_closed(page: Page) -> None:
    for opening, closing in (("Bl", "El"), ("Bd", "Ed")):
        depth = 0
        for name, _ in page.macros:
            depth += (name == opening) - (name == closing)
            assert depth >= 0
        assert depth == 0


def test_every_option_of_the_synopsis_is_explained_and_no_other(page: Page) -> None:
    offered = letters(page.section("SYNOPSIS"))
    body = page.text.partition(".Sh DESCRIPTION\n")[2].partition(".Sh DIFFERENCES\n")[0]
    assert offered <= letters(body)
    heads = re.findall(r"^\.It Fl (-?\w)", body, re.MULTILINE)
    assert {head for head in heads if head[0] != "-"} <= offered


def test_other_pages_are_referred_to_by_names_that_exist(page: Page) -> None:
    ours = {f"{name}(8)" for name in PROGRAMS}
    assert set(page.references(page.text)) <= ours | ELSEWHERE


def test_see_also_names_each_other_page_once_in_order(page: Page) -> None:
    listed = page.references(page.section("SEE ALSO"))
    assert listed == sorted(set(listed), key=lambda name: (name[-2], name))
    assert f"{page.name}(8)" not in listed


def test_variables_are_those_that_the_code_knows(page: Page, code: str) -> None:
    told = page.text.partition(".Sh DIFFERENCES\n")[0]
    marked = re.findall(r"\bEv ((?:[^ \n]+(?: , )?)+)", told)
    names = {name for words in marked for name in VARIABLE.findall(words)}
    unknown = {name for name in names if not COMPOSED.match(name) and name not in code}
    assert not unknown


def test_control_files_are_those_that_the_code_knows(page: Page, code: str) -> None:
    told = page.text.partition(".Sh DIFFERENCES\n")[0]
    names = set(re.findall(r"\bcontrol/([a-z0-9.-]+[a-z0-9])", told))
    assert not {name for name in names - {"relaypassword"} if name not in code}


def test_lines_are_for_people_and_for_troff(page: Page) -> None:
    lines = page.text.split("\n")
    assert lines[-1] == ""
    assert not [line for line in lines if len(line) > 100 or line != line.rstrip()]
    assert "" not in lines[:-1]  # an empty line is a paragraph that mdoc does not know of


def test_groff_has_nothing_to_warn_of() -> None:
    if not shutil.which("groff"):
        pytest.skip("no groff")
    command = ["groff", "-mdoc", "-ww", "-Tascii", "-z", *map(str, WHOLE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if "can't open 'doc.tmac'" in done.stderr or "can't find macro file" in done.stderr:
        pytest.skip("groff without its macros")
    assert (done.returncode, done.stderr) == (0, "")


def test_mandoc_has_nothing_to_warn_of() -> None:
    if not shutil.which("mandoc"):
        pytest.skip("no mandoc")
    command = ["mandoc", "-Tlint", "-Wwarning", *map(str, WHOLE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
