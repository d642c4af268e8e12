"""``rewardsteer`` and ``python`` for the shell blocks of a page and for scripts.

A start imports the same libraries for about ten seconds. Here one process has imported them and
forks for every command.
"""

import contextlib
import json
import os
import runpy
import socket
import subprocess
import sys
import traceback
from pathlib import Path

# What the shell starts: it hands over its words, folder, variables and streams, and ends as the
# command did.
CLIENT = """#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = [os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd(), dict(os.environ)]
socket.send_fds(server, [json.dumps(asked).encode() + b"\\n"], [0, 1, 2])
sys.exit(int(server.recv(16) or b"1"))
"""


@contextlib.contextmanager
def warm_commands(folder, environment):
    """A folder for the front of PATH, whose commands run in forks of one process."""
    address, commands = str(folder / "commands.socket"), folder / "commands"
    commands.mkdir()
    for name in ("rewardsteer", "python"):
        script = commands / name
        script.write_text(CLIENT.format(python=sys.executable, address=address))
        script.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.warm", address], env=environment,
        cwd=Path(__file__).parents[1], stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout.readline() == b"ready\n"
        yield commands
    finally:
        process.terminate()
        process.wait(30)


def serve(address):
    """Run the commands that clients ask for, one after the other."""
    import rewardsteer.cli.main
    import rewardsteer.decoding.generate
    import rewardsteer.evaluation.generation
    import rewardsteer.training.run  # noqa: F401

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        client, _ = listener.accept()
        message, streams, _, _ = socket.recv_fds(client, 1 << 20, 3)
        assert message.endswith(b"\n")
        child = os.fork()
        if child == 0:
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            os._exit(run(*json.loads(message)))
        for stream in streams:
            os.close(stream)
        client.sendall(b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        client.close()


def run(name, words, folder, environment):
    """One command in this process; its exit status."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = ""
    try:
        if name == "rewardsteer":
            from rewardsteer.cli.main import app

            sys.argv = [name, *words]
            app()
        elif words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            exec(words[1], {"__name__": "__main__"})
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
