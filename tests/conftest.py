"""What holds for every test."""

import signal

# A shell that runs `make test &`, or nohup, lets its children ignore these, and a run respects that. Tests send them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
