"""``rewardsteer`` and ``python`` in forks of a process that has imported what they need.

A start imports the same libraries for about ten seconds. Here one process has imported them (see
the fixture `warm` in conftest.py) and forks for every command. Commands stay processes of their
own: they may be killed, run at the same time, and leave nothing behind. What is proved of a start
itself needs a fresh process: what it imports and prints, and variables that libraries read then.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]

# By commands, servers, launchers and the processes that these launch.
IMPORTED = (
    "accelerate.commands.launch", "deepspeed", "peft", "torch.distributed.fsdp",
    "torch.distributed.run", "transformers.models.llama.modeling_llama", "rewardsteer.cli.main",
    "rewardsteer.decoding.generate", "rewardsteer.distillation.run",
    "rewardsteer.evaluation.generation", "rewardsteer.serving.run", "rewardsteer.training.run",
)
# What a caller starts: it hands over its words, folder, variables and streams, passes signals on,
# and ends as the command did. When it is gone, so is the command.
CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = [os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd(), dict(os.environ)]
socket.send_fds(server, [json.dumps(asked).encode() + b"\\n"], [0, 1, 2])
answers = server.makefile()
process = int(answers.readline())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(process, number))
sys.exit(int(answers.readline() or 1))
"""


@contextlib.contextmanager
def warm_commands(folder):
    """A folder with the two commands, whose work is done in forks of one process."""
    address, commands = str(folder / "commands.socket"), folder / "commands"
    commands.mkdir()
    for name in ("rewardsteer", "python"):
        script = commands / name
        script.write_text(CLIENT.format(python=sys.executable, address=address))
        script.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.warm", address], stdout=subprocess.PIPE, cwd=ROOT,
        env=os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu",
        },
    )
    try:
        assert process.stdout.readline() == b"ready\n"
        yield commands
    finally:
        process.terminate()
        process.wait(30)


def serve(address):
    """Fork for every command that is asked for."""
    for name in IMPORTED:
        importlib.import_module(name)
    # As in conftest.py; and what nobody collects stays shared with the forks.
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        client, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            os._exit(keep(client))
        client.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # keepers that are done
                pass


def keep(client):
    """Start the command of a client and tell it the process and then the status."""
    message, streams, _, _ = socket.recv_fds(client, 1 << 20, 3)
    assert message.endswith(b"\n")
    child = os.fork()
    if child == 0:
        client.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os._exit(run(*json.loads(message)))
    for stream in streams:
        os.close(stream)

    def end_with_client():
        if client.recv(1) == b"":
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    client.sendall(b"%d\n" % child)
    threading.Thread(target=end_with_client, daemon=True).start()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        client.sendall(b"%d\n" % status)
    return 0


def run(name, words, folder, environment):
    """One command in this process; its exit status."""
    # An interrupt ends it, whatever the shell that began all this ignores.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = ""
    if name == "rewardsteer":
        words = ["-m", name, *words]
    words = words[words[0] == "-u" :]
    try:
        if words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            exec(words[1], {"__name__": "__main__"})
        elif words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = words, str(Path(words[0]).resolve().parent)
            runpy.run_path(words[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    serve(sys.argv[1])
