"""A process that has imported everything and forks a victim for each job: 200 kills are not 200 imports of torch.

    python victims.py      one JSON object a line on stdin: {"job", "args", "log": FILE, "fault": null or [index, errno]}

For each line it prints the victim's process id, and when the victim has ended its exit code (negative: the signal that killed
it). With a fault, that write of the victim fails (faults.py). A victim is an ordinary process, to be killed at any moment.
"""

import json
import os
import sys
from pathlib import Path


def main() -> None:
    import torch
    from chaos import faults
    from chaos.jobs import JOBS

    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        pid = os.fork()
        if pid == 0:
            log = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = 70
            try:
                with faults.injected(Path(task["args"]["folder"]), *(task["fault"] or (None, 0))) as writes:
                    code = JOBS[task["job"]](**task["args"])
                print("\nwrites: " + json.dumps([writes.count, writes.places]), flush=True)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
