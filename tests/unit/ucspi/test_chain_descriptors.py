"""Which descriptors a child of the chain has."""

import os

from ucspi import chain


def child(work: object) -> int:
    """Run work in a child and return its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            assert callable(work)
            status = work()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def is_same(one: int, other: int) -> bool:
    return os.path.sameopenfile(one, other)


def test_one_descriptor_can_be_wanted_on_two_numbers() -> None:
    read, write = os.pipe()

    def work() -> int:
        original = os.dup(read)
        chain.place({0: read, 1: read, 2: write})
        return 0 if is_same(0, original) and is_same(1, original) else 1

    assert child(work) == 0
    os.close(read)
    os.close(write)


def test_descriptors_can_change_places() -> None:
    read, write = os.pipe()

    def work() -> int:
        one, other = os.dup(read), os.dup(write)
        chain.place({read: write, write: read})
        return 0 if is_same(read, other) and is_same(write, one) else 1

    assert child(work) == 0
    os.close(read)
    os.close(write)


def test_child_in_process_does_not_keep_its_parents_ends() -> None:
    read, write = os.pipe()

    def reads_to_the_end(argv: list[str], env: dict[str, str]) -> int:
        # With the parent's writing end still open here, this would never come back.
        return 7 if os.read(0, 1) == b"" else 1

    def work() -> int:
        chain._targets = {"reads": "none:none"}
        chain._loaded["reads"] = reads_to_the_end
        pid = chain.spawn(["reads"], {}, {0: read}, close_from=3)
        os.close(write)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert child(work) == 7
    os.close(read)
    os.close(write)


def test_programs_are_asked_to_preload_only_with_an_environment() -> None:
    import types

    calls: list[tuple[list[str], dict[str, str]]] = []
    module = types.ModuleType("preloading")

    def main(argv: list[str], env: dict[str, str]) -> int:
        return 0

    main.__module__ = "preloading"
    module.preload = lambda argv, env: calls.append((argv, env))  # type: ignore[attr-defined]

    def work() -> int:
        import sys

        sys.modules["preloading"] = module
        chain._targets = {"p": "preloading:main"}
        chain._loaded["p"] = main
        chain.load(["p", "x"])
        if calls:
            return 1
        chain.load(["other", "p", "x"], {"A": "b"})
        return 0 if calls == [(["p", "x"], {"A": "b"})] else 2

    assert child(work) == 0
