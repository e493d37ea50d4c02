"""Where the work runs: in this process, in worker processes, on Ray, or in a batch system."""
