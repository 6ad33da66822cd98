"""`oaks train` in one of two processes, whose second is killed before a step; run by test_processes.py."""

from __future__ import annotations

import os
import signal
import sys

from oaks.cli.main import main
from oaks.training.pose import PoseTraining

if __name__ == "__main__":
    step, own = int(sys.argv[1]), PoseTraining.training_step

    def fatal(self, batch, batch_idx):
        if self.global_step == step and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return own(self, batch, batch_idx)

    PoseTraining.training_step = fatal
    main(sys.argv[2:])
