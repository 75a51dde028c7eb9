"""Which jobs a living process has in hand: nobody repeats what may be on its wire (promises P2 to P4)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.domain.errors import StoreUnavailable
from server.store.holds import Holds
from server.store.opening import open_holds

HOLDER = """
import sys
from pathlib import Path
from server.store.holds import Holds
with Holds(Path(sys.argv[1])).hold(sys.argv[2]) as held:
    print(held, flush=True)
    sys.stdin.readline()
"""
Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def holds(tmp_path: Path) -> Holds:
    """Those of a store in the test's folder."""
    return open_holds(f"sqlite:///{tmp_path / 'access.db'}")


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Start]:
    """Starts a process that takes a job in hand and waits."""
    started: list[subprocess.Popen[str]] = []

    def start(job_id: str) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", HOLDER, str(tmp_path / "access.db.held"), job_id]
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _ended(process: subprocess.Popen[str], sent: int) -> None:
    process.send_signal(sent)
    process.wait(10)


def test_a_job_in_hand_is_nobody_elses(holds: Holds, other: Start) -> None:
    """Another process has it: it can not be taken, and it is told which process that is."""
    process = other("job1")
    (found,) = holds.held()
    assert (found.job_id, found.ours) == ("job1", False)
    assert found.process.startswith(f"{process.pid} on ")
    assert 0 <= found.seconds < 60
    with holds.hold("job1") as ours, holds.hold("job2") as another:
        assert (ours, another) == (False, True)


def test_a_stopped_process_keeps_what_it_has_in_hand(holds: Holds, other: Start) -> None:
    """A lease can not tell a stopped process from a dead one; this can."""
    process = other("job1")
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.1)
    assert [hold.job_id for hold in holds.held()] == ["job1"]
    process.send_signal(signal.SIGCONT)


def test_a_killed_process_has_nothing_in_hand(holds: Holds, other: Start, tmp_path: Path) -> None:
    """The kernel lets go for it; what it left is swept up by the next look, and the job can be taken."""
    _ended(other("job1"), signal.SIGKILL)
    assert os.listdir(tmp_path / "access.db.held") == ["job1"]
    assert holds.held() == []
    assert os.listdir(tmp_path / "access.db.held") == []
    with holds.hold("job1") as ours:
        assert ours


def test_a_file_that_was_left_is_taken_over(holds: Holds, other: Start) -> None:
    """Without a look in between."""
    _ended(other("job1"), signal.SIGKILL)
    with holds.hold("job1") as ours:
        assert ours
        (found,) = holds.held()
    assert found.process.startswith(f"{os.getpid()} on ")
    assert holds.held() == []


def test_once_in_a_process(holds: Holds, tmp_path: Path) -> None:
    """Twice by one worker or by two of one process is as much too often as by two processes."""
    with (
        holds.hold("job1") as first,
        holds.hold("job1") as again,
        Holds(tmp_path / "access.db.held").hold("job1") as two,
    ):
        assert (first, again, two) == (True, False, False)
        assert [hold.ours for hold in holds.held()] == [True]


def test_each_store_has_its_own(holds: Holds, tmp_path: Path) -> None:
    """The same id in another store is another job."""
    elsewhere = open_holds(f"sqlite:///{tmp_path / 'other.db'}")
    with holds.hold("job1") as ours, elsewhere.hold("job1") as theirs:
        assert (ours, theirs) == (True, True)


def test_a_store_is_one_by_whatever_name(holds: Holds, tmp_path: Path) -> None:
    """A link to its folder leads to the same locks."""
    (tmp_path / "link").symlink_to(tmp_path)
    with holds.hold("job1"), open_holds(f"sqlite:///{tmp_path / 'link' / 'access.db'}").hold("job1") as again:
        assert not again


def test_a_store_of_several_machines_knows_leases_only(tmp_path: Path) -> None:
    """There a lock of one machine says nothing to another: nothing is in hand, everything may be taken."""
    holds = open_holds("mongodb://127.0.0.1/access?replicaSet=rs0")
    with holds.hold("job1") as first, holds.hold("job1") as again:
        assert (first, again, holds.held()) == (True, True, [])


def test_a_folder_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    """Temporary: what can not be taken in hand is not begun."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable), Holds(tmp_path / "file" / "held").hold("job1"):
        raise AssertionError("never in hand")
