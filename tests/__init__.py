"""The tests. What has to be so before torch and numpy are loaded is said here."""

import os

# Of two workers of two threads on two cores, each that spins while it waits takes its core from
# one that works. The commands say so themselves (`terminal.prepare_libraries`); of numpy's
# matrices one thread is as fast for what tests multiply.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
