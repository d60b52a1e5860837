"""What a child of the chain does not keep, and what is read before there is one."""

import os
import sys
import types

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


def test_child_in_process_does_not_keep_its_parents_ends() -> None:
    def reads_to_the_end(argv: list[str], env: dict[str, str]) -> int:
        # With the parent's writing end still open here, this would never come back.
        return 7 if os.read(0, 1) == b"" else 1

    def work() -> int:
        read, write = os.pipe()
        chain._targets = {"reads": "none:none"}
        chain._loaded["reads"] = reads_to_the_end
        pid = chain.spawn(["reads"], {}, {0: read}, close_from=3)
        os.close(write)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert child(work) == 7


def test_child_keeps_nothing_between_the_numbers_that_it_was_given() -> None:
    def holds(argv: list[str], env: dict[str, str]) -> int:
        held = []
        for number in range(20):
            try:
                os.fstat(number)
            except OSError:
                continue
            held.append(number)
        return 7 if held == [0, 1, 2, 4, 6] else 1

    def work() -> int:
        read, write = os.pipe()
        for number in (3, 5, 7, 8):
            os.dup2(write, number)
        chain._targets = {"holds": "none:none"}
        chain._loaded["holds"] = holds
        given = {0: os.dup(read), 4: os.dup(write), 6: os.dup(write)}
        pid = chain.spawn(["holds"], {}, given, close_from=3)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert child(work) == 7


def test_programs_are_asked_to_preload_only_with_an_environment() -> None:
    calls: list[tuple[list[str], dict[str, str]]] = []
    module = types.ModuleType("preloading")

    def main(argv: list[str], env: dict[str, str]) -> int:
        return 0

    main.__module__ = "preloading"
    module.preload = lambda argv, env: calls.append((argv, env))  # type: ignore[attr-defined]

    def work() -> int:
        sys.modules["preloading"] = module
        chain._targets = {"p": "preloading:main"}
        chain._loaded["p"] = main
        chain.load(["p", "x"])
        if calls:
            return 1
        chain.load(["other", "p", "x"], {"A": "b"})
        return 0 if calls == [(["p", "x"], {"A": "b"})] else 2

    assert child(work) == 0


def test_a_child_whose_output_goes_to_the_log_keeps_its_standard_error() -> None:
    def work() -> int:
        chain.place({1: 2})
        os.fstat(2)
        return 0 if os.fstat(1).st_ino == os.fstat(2).st_ino else 1

    assert child(work) == 0


def test_descriptors_are_closed_however_high_their_numbers() -> None:
    import fcntl
    import resource

    def work() -> int:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 5000), hard))
        kept, *others = (fcntl.fcntl(0, fcntl.F_DUPFD, number) for number in (40, 3, 1023, 4000))
        chain.close_all_but({0, 1, 2, kept})
        os.fstat(kept)
        for number in others:
            try:
                os.fstat(number)
            except OSError:
                continue
            return 1
        return 0

    assert child(work) == 0
