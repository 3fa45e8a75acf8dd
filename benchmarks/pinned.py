"""Run ``dff`` on one core, by its number among torchrun's processes: each has one to itself."""

import os

os.sched_setaffinity(0, {int(os.environ["LOCAL_RANK"]) % (os.cpu_count() or 1)})

from dff.cli import main  # noqa: E402 - threads are counted when torch is imported

if __name__ == "__main__":
    main()
