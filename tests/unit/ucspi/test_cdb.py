"""The cdb format: known bytes, any content, damaged files."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucspi import cdb


def test_hash_is_the_published_one() -> None:
    assert cdb.hash_key(b"") == 5381
    assert cdb.hash_key(b"one") == ((((5381 * 33 ^ 0x6F) * 33 ^ 0x6E) * 33) ^ 0x65) & 0xFFFFFFFF


def test_an_empty_database_is_a_header_of_empty_tables() -> None:
    assert cdb.encode([]) == (b"\x00\x08\x00\x00" + b"\0\0\0\0") * 256


def test_a_record_stands_right_behind_the_header() -> None:
    assert cdb.encode([(b"k", b"data")])[2048:2061] == b"\x01\0\0\0\x04\0\0\0kdata"


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=40)), max_size=60))
def test_every_record_is_found_again(
    tmp_path_factory: pytest.TempPathFactory, items: list[tuple[bytes, bytes]]
) -> None:
    path = str(tmp_path_factory.mktemp("cdb") / "x.cdb")
    cdb.write(path, items)
    with cdb.Reader(path) as reader:
        assert list(reader.items()) == items
        for key, _ in items:
            wanted = [data for other, data in items if other == key]
            assert list(reader.get_all(key)) == wanted
            assert reader.get(key) == wanted[0]
        assert reader.get(b"a key longer than any of them") is None


def test_a_cut_off_file_is_an_error_not_a_missing_key(tmp_path: Path) -> None:
    path = tmp_path / "x.cdb"
    path.write_bytes(cdb.encode([(b"key", b"data")])[:-4])
    with cdb.Reader(str(path)) as reader, pytest.raises(cdb.FormatError):
        for key in (b"key", b"other"):
            reader.get(key)


def test_a_failed_write_leaves_the_old_database(tmp_path: Path) -> None:
    path = tmp_path / "x.cdb"
    cdb.write(str(path), [(b"a", b"1")])
    (tmp_path / "x.cdb.tmp").mkdir()
    with pytest.raises(OSError):
        cdb.write(str(path), [(b"a", b"2")])
    with cdb.Reader(str(path)) as reader:
        assert reader.get(b"a") == b"1"


def test_hashes_of_beginnings_are_those_of_keys() -> None:
    key = b"!example.org-alice-"
    hashes = cdb.prefix_hashes(key)
    assert hashes == [cdb.hash_key(key[:length]) for length in range(len(key) + 1)]
    part = cdb.prefix(key, 8, hashes)
    assert part == b"!example"
    assert cdb.hash_key(part) == cdb.hash_key(b"!example")


def test_a_record_that_says_it_is_endless_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "rules.cdb"
    content = bytearray(cdb.encode([(b"key", b"data")]))
    content[cdb.HEADER_SIZE + 4 : cdb.HEADER_SIZE + 8] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    with cdb.Reader(str(path)) as database, pytest.raises(cdb.FormatError, match="too long"):
        database.get(b"key")
