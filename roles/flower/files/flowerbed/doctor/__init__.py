"""Is this Flower well?  One line a check, an exit code, and for each failure what to do next.

    doctor http://user:password@host/prefix    from outside, as a user sees it (`-` reads the URL from standard input)
    doctor --settings FILE                     on the host as root: the front door, and what only the inside can see
    doctor --settings FILE --socket            the same, past the web server: the health gate of a deployment

Exit: 0 all passed, 1 not accessible (or its settings cannot be read), 2 no workers, 3 authentication or security,
4 events are not counted or tasks not remembered (1 before 3 before 2 before 4), 64 bad usage.
The first form needs nothing but Python 3.10, so this package also runs outside of any virtual environment.
No secret is printed, and none is in the arguments or the environment of a program that the doctor starts.
"""

from flowerbed.doctor.cli import main

__all__ = ["main"]
