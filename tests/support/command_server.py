"""Run programs of a documented block in forks of one process that has imported all of `tif`.

A command takes half a second instead of seven. It is the installed one: the entry point `tif`, in
a process of its own, in the block's folder, with its environment, words, input and output.
"""

import importlib
import importlib.metadata
import json
import os
import pathlib
import signal
import socket
import sys
import tempfile

from tests.support import documented_shell

MODULES = ("tif.training.run", "tif.audit.command", "tif.report", "tif.chat", "tif.identify")
CLIENT = f"""#!{sys.executable} -SE
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(ADDRESS)
call = {{"words": [PROGRAM, *sys.argv[1:]], "cwd": os.getcwd(), "env": dict(os.environ)}}
socket.send_fds(connection, [b" "], [0, 1, 2])
connection.sendall(json.dumps(call).encode())
connection.shutdown(socket.SHUT_WR)
sys.exit(int(connection.makefile().read() or 70))
"""


def write_programs(folder, names, address):
    """Write programs of these names, which send their words to the server at the address."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = CLIENT.replace("ADDRESS", repr(address)).replace("PROGRAM", repr(name))
        path.write_text(text)
        path.chmod(0o755)


def serve(address):
    """Answer the programs' calls until the process is ended."""
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="tif")
    run = entry.load()
    for module in MODULES:
        importlib.import_module(module)
    # As Python does for the installed script.
    sys.path[0] = str(pathlib.Path(sys.executable).parent)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()
    while True:
        connection, _ = server.accept()
        if os.fork() == 0:
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _answer(connection, run)
        connection.close()


def _answer(connection, run):
    """Run a call in a further fork; note it, pass on its output and exit code."""
    _, standard, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile() as file:
        call = json.loads(file.read())
    rule = documented_shell.rule_for(call["words"], "RESULTS" in call["env"])
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        code, seconds = 0, 0.0
        if rule.words is not None:
            child = os.fork()
            if child == 0:
                for number, file in enumerate((standard[0], out.fileno(), err.fileno())):
                    os.dup2(file, number)
                os.chdir(call["cwd"])
                os.environ.clear()
                os.environ.update(call["env"])
                sys.argv = ["tif", *rule.words]
                sys.exit(run())
            _, status, usage = os.wait4(child, 0)
            code, seconds = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        texts = []
        for file, number in ((out, standard[1]), (err, standard[2])):
            file.seek(0)
            texts.append(file.read())
            with open(number, "wb", closefd=False) as target:
                target.write(texts[-1])
    line = {
        "words": call["words"], "ran": rule.words, "reason": rule.reason, "code": code,
        "output": b"".join(texts).decode(errors="replace")[-2000:],
        "seconds": seconds,
    }  # fmt: skip
    with open(call["env"]["CALLS"], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    connection.sendall(str(code % 256).encode())
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
