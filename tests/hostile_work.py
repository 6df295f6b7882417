"""Work for the processes of `promptseg.isolated`, in a module that they can import too."""

import os
import signal
import sys
import time

from promptseg.isolated import BATCH_BYTES


def work(task):
    """Do what the task is called, after one result."""
    yield f"{task} begins"
    match task:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            time.sleep(60)
        case "swell":
            yield len(bytearray(4 << 30))
        case "raise":
            raise ValueError("/home/jane_doe/scan.png")
        case "exit":
            os._exit(7)
    yield f"{task} ends"


def told(task):
    """Do what the task is called, and give it back."""
    *_, last = work(task)
    return last


def numbers(task):
    """Give many results, the later tasks sooner than the first."""
    if task == 0:
        time.sleep(0.5)
    for index in range(200):
        yield task, index


def heavy(task):
    """Give results of a megabyte; every one that was made is a file in the task's folder."""
    folder, number = task
    for index in range(400):
        (folder / f"{number}-{index}").touch()
        yield bytes(BATCH_BYTES)


def one(_):
    """Size of a result."""
    return 1


def much(_):
    """Size of a result that is sent at once."""
    return BATCH_BYTES


def pid(_):
    """Give the number of the process, then wait."""
    yield os.getpid()
    time.sleep(60)


def leave(_):
    """End the process, whatever the task."""
    os._exit(7)


def look_and_crash(task):
    """Look at a folder; who opens a file that is from the year 1970 is gone at once."""
    from promptseg.look import _looked

    def crash(event, args):
        if event == "open" and isinstance(args[0], str | os.PathLike):
            try:
                status = os.stat(args[0])
            except OSError:
                return
            if status.st_mtime_ns == 1:
                os.kill(os.getpid(), signal.SIGSEGV)

    sys.addaudithook(crash)
    return _looked(task)
