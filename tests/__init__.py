"""The tests. What has to be so before torch is loaded is said here."""

import os

# As the commands do (`terminal.prepare_libraries`): of two workers of two threads on two cores,
# each that spins while it waits takes its core from one that works.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
