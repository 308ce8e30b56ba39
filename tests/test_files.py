"""Whole or not at all: full disks, Ctrl-C, kill -9 and other writers in the middle of a write."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from oncontour.errors import InputError, OutputError
from oncontour.files import check_writable, write_text, writing, writing_folder


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def start(code: str, *arguments: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def half_a_file(path: Path, error: type[BaseException]) -> None:
    with writing(path) as temporary:
        temporary.write_text("ne")
        raise error("in the middle")


def half_a_folder(path: Path, error: type[BaseException]) -> None:
    with writing_folder(path) as folder:
        (folder / "b").write_text("ne")
        raise error("in the middle")


def file_on_a_full_disk(path: Path) -> None:
    with writing(path) as temporary:
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        temporary.write_bytes(bytes(10_000))


def folder_on_a_full_disk(path: Path) -> None:
    with writing_folder(path) as folder:
        (folder / "b").symlink_to("/dev/full")
        (folder / "b").write_bytes(bytes(10_000))


def test_writes_and_replaces(tmp_path: Path) -> None:
    file = tmp_path / "new" / "deep" / "a.nii.gz"
    for text in ("one", "two"):
        with writing(file) as temporary:
            assert temporary.name.endswith(".gz")  # writers choose a format by it
            assert temporary.parent == file.parent
            temporary.write_text(text)
        assert file.read_text() == text
    assert names(file.parent) == ["a.nii.gz"]


def test_what_cannot_be_written_is_said_before_long_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for fine in (tmp_path, tmp_path / "new", tmp_path / "new" / "deep"):
        check_writable(fine)
    assert names(tmp_path) == ["file"]
    for bad in (tmp_path / "file", tmp_path / "file" / "deep"):
        with pytest.raises(OutputError, match="a file is in the way"):
            check_writable(bad)
    if os.access("/proc/self/task", os.F_OK) and not os.access("/proc/self/task", os.W_OK):
        with pytest.raises(OutputError, match="Permission denied"):
            check_writable("/proc/self/task/new")


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "x")
        with writing_folder(tmp_path / "f") as folder:
            (folder / "b").write_text("x")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, InputError], ids=lambda e: e.__name__)
def test_an_error_inside_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    write_text(tmp_path / "a", "old")
    with writing_folder(tmp_path / "f") as folder:
        (folder / "b").write_text("old")
    with pytest.raises(error):
        half_a_file(tmp_path / "a", error)
    with pytest.raises(error):
        half_a_folder(tmp_path / "f", error)
    assert names(tmp_path) == ["a", "f", "f/b"]
    assert (tmp_path / "a").read_text() == (tmp_path / "f" / "b").read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises(OutputError, match=r"the disk is full \[.*a\]. Way out: free space") as caught:
        file_on_a_full_disk(tmp_path / "a")
    assert caught.value.exit_code == 5
    with pytest.raises(OutputError, match="the disk is full"):
        folder_on_a_full_disk(tmp_path / "f")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_library_that_words_a_full_disk_itself_is_understood(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the disk is full"), writing(tmp_path / "a"):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(OutputError, match="the disk is full"), writing_folder(tmp_path / "f"):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")


def test_a_write_cut_off_by_the_system_leaves_what_was_there(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stops the file in the middle, as a quota does."""
    write_text(tmp_path / "a", "old")
    worker = start(
        """
        import resource, sys
        from oncontour.files import writing
        from oncontour.errors import OutputError
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            with writing(sys.argv[1]) as temporary:
                temporary.write_bytes(bytes(100_000))
        except OutputError as error:
            print(error)
        """,
        tmp_path / "a",
    )
    said, trouble = worker.communicate(timeout=60)
    assert "cannot write (File too large)" in said, trouble
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_kill_9_leaves_what_was_there_and_the_next_writer_clears_up(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    with writing_folder(tmp_path / "f") as folder:
        (folder / "b").write_text("old")
    worker = start(
        """
        import sys, time
        from oncontour.files import writing, writing_folder
        with writing(sys.argv[1]) as temporary, writing_folder(sys.argv[2]) as folder:
            temporary.write_text("ne")
            (folder / "b").write_text("ne")
            print("half", flush=True)
            time.sleep(60)
        """,
        tmp_path / "a",
        tmp_path / "f",
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "half\n"
    with writing(tmp_path / "a") as temporary:  # a writer at work is left alone by another
        temporary.write_text("old")
    assert len(list(tmp_path.glob(".*"))) == 2
    worker.send_signal(signal.SIGKILL)
    worker.communicate(timeout=60)
    assert (tmp_path / "a").read_text() == (tmp_path / "f" / "b").read_text() == "old"
    write_text(tmp_path / "a", "new")
    with writing_folder(tmp_path / "f") as folder:
        (folder / "b").write_text("new")
    assert names(tmp_path) == ["a", "f", "f/b"]


def test_ctrl_c_in_a_process_leaves_nothing_behind(tmp_path: Path) -> None:
    worker = start(
        """
        import sys, time
        from oncontour.files import writing
        with writing(sys.argv[1]) as temporary:
            temporary.write_text("half")
            print("half", flush=True)
            time.sleep(60)
        """,
        tmp_path / "a",
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "half\n"
    worker.send_signal(signal.SIGINT)
    _, trouble = worker.communicate(timeout=60)
    assert "KeyboardInterrupt" in trouble
    assert names(tmp_path) == []


def test_many_writers_of_one_file_leave_one_whole_file(tmp_path: Path) -> None:
    def write(letter: str) -> None:
        for _ in range(10):
            with writing(tmp_path / "a") as temporary:
                temporary.write_text(letter * 5000)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_text() in {letter * 5000 for letter in "abcd"}
    assert names(tmp_path) == ["a"]


def test_replacing_a_folder_swaps_it_whole(tmp_path: Path) -> None:
    with writing_folder(tmp_path / "f") as folder:
        (folder / "only-old").write_text("old")
    with writing_folder(tmp_path / "f") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "new").write_text("new")
        assert (tmp_path / "f" / "only-old").exists()
    assert names(tmp_path) == ["f", "f/deep", "f/deep/new"]


def test_names_that_look_like_patterns_are_names(tmp_path: Path) -> None:
    write_text(tmp_path / ".b.1.part", "someone else's")
    for name in ("[ab]*", "?", "a b"):
        write_text(tmp_path / name, "x")
    assert names(tmp_path) == sorted([".b.1.part", "[ab]*", "?", "a b"])


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(OutputError, match=r"cannot write .*\[.*file/a\]. Way out"), writing(tmp_path / "file" / "a"):
        pass
    with pytest.raises(OutputError, match="cannot write"), writing(tmp_path / "full") as temporary:
        temporary.write_text("over a folder")
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / ("n" * 300), "x")
    assert names(tmp_path) == ["file", "full", "full/x"]


def test_an_error_that_a_library_wrapped_is_still_one_sentence(tmp_path: Path) -> None:
    """As pydicom does: a new OSError without a number, whose text is a traceback."""
    from pydicom.tag import tag_in_exception

    for number, says in ((errno.ENOSPC, "the disk is full"), (errno.EFBIG, r"cannot write \(File too large\)")):
        with (
            pytest.raises(OutputError, match=rf"^{says} \[.*a\.dcm\]") as raised,
            writing(tmp_path / "a.dcm"),
            tag_in_exception(0x7FE00010),
        ):  # type: ignore[arg-type]
            raise OSError(number, os.strerror(number))
        assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())
