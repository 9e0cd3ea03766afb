"""Python whose imports are done, for tests that start many commands.

Each start of a command imports PyTorch and the host for seconds, which is not
what most tests are about. ``warm_python()`` is a stand-in for
``sys.executable``: it asks a server, which has imported them, to fork. The
command still has a process of its own, with its arguments, folder,
environment, files 0 to 2, signals and exit code, and the Python processes
that it starts are warm too. Options other than -u, -W and -m start Python
itself. Tests of the start itself use ``sys.executable``.
"""
import atexit
import functools
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import types
import warnings
from pathlib import Path

PREPARED = ('torch.distributed.run', 'mmpretrain', 'univip_mm.engine')
CLIENT = '''#!{executable} -SE
import ctypes, json, os, signal, socket, struct, sys
words, at = sys.argv[1:], 0
while words[at:at + 1] in (['-u'], ['-W']):
    at += 1 + (words[at] == '-W')
if at >= len(words) or words[at][:1] == '-' and words[at] != '-m':
    os.execv({executable!r}, [{executable!r}, *words])
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # die with the parent
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
data = json.dumps(dict(
    words=words, folder=os.getcwd(), client=sys.argv[0],
    environment=dict(os.environ),
    ignored=[number for number in (signal.SIGHUP, signal.SIGINT)
             if signal.getsignal(number) is signal.SIG_IGN])).encode()
socket.send_fds(server, [struct.pack('i', len(data))], [0, 1, 2])
server.sendall(data)
pid, = struct.unpack('i', server.recv(4))
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: os.kill(pid, number))
code = os.waitstatus_to_exitcode(struct.unpack('i', server.recv(4))[0])
if code < 0:
    if code != -signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
'''


@functools.lru_cache(None)
def warm_python() -> str:
    """Return the path of a ``python`` that starts without imports.

    The server is started once, and ends with this process.
    """
    folder = tempfile.TemporaryDirectory(prefix='warm')
    address = f'{folder.name}/server'
    client = Path(folder.name, 'python')
    client.write_text(CLIENT.format(executable=sys.executable,
                                    address=address))
    client.chmod(0o755)
    root = Path(__file__).parents[1]
    server = subprocess.Popen(
        [sys.executable, __file__, address], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, env=dict(
            os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='',
            PYTHONPATH=f'{root}{os.pathsep}{root / "tests"}'))
    assert server.stdout.readline() == b'ready\n'

    def stop():
        server.stdin.close()
        server.stdout.close()
        server.wait()
        folder.cleanup()

    atexit.register(stop)
    return str(client)


def serve(address):
    """Answer requests until stdin ends; return each in a forked process."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(32)
    for name in PREPARED:
        importlib.import_module(name)
    gc.freeze()  # so that a fork shares the memory
    print('ready', flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    while 0 not in (ready := select.select([0, listener], [], [])[0]):
        assert ready
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            request = supervise(connection)
            connection.close()
            return request
        connection.close()
    os._exit(0)


def supervise(connection):
    """Fork the command; return its request there, else wait for its end."""
    head, files, _, _ = socket.recv_fds(connection, 4, 3)
    size, = struct.unpack('i', head)
    data = b''
    while len(data) < size:
        data += connection.recv(size - len(data))
    pid = os.fork()
    if pid == 0:
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        return json.loads(data)
    for file in (*files, 0, 1, 2):
        os.close(file)
    connection.sendall(struct.pack('i', pid))
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG
                    | os.WNOWAIT) is None:
        if select.select([connection], [], [], 0.02)[0]:
            os.kill(pid, signal.SIGKILL)  # the client has ended
            os._exit(1)
    connection.sendall(struct.pack('i', os.waitpid(pid, 0)[1]))
    os._exit(0)


def start(words, folder, client, environment, ignored):
    """Run a command in this process, as Python does."""
    for number, handler in ((signal.SIGHUP, signal.SIG_DFL),
                            (signal.SIGINT, signal.default_int_handler)):
        signal.signal(number,
                      signal.SIG_IGN if number in ignored else handler)
    import numpy
    random.seed()
    numpy.random.seed()
    inherited = {'', os.path.dirname(__file__),
                 *os.environ['PYTHONPATH'].split(os.pathsep)}
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable = client
    while words[0] in ('-u', '-W'):
        option = words.pop(0)
        if option == '-W':
            warnings.simplefilter(words.pop(0))
        else:
            sys.stdout.reconfigure(write_through=True)
    is_module = words[0] == '-m'
    sys.argv = words[is_module:]
    script = os.path.join(folder, sys.argv[0])
    first = folder if is_module else os.path.dirname(os.path.realpath(script))
    given = environment.get('PYTHONPATH', '')
    sys.path[:] = [
        first, *(os.path.abspath(x) for x in given.split(os.pathsep) if x),
        *(x for x in sys.path if x not in inherited)]
    importlib.invalidate_caches()
    if is_module:
        runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
    else:
        # As runpy.run_path(), which would change sys.argv[0].
        main = sys.modules['__main__'] = types.ModuleType('__main__')
        main.__file__ = script
        exec(compile(Path(script).read_bytes(), script, 'exec'), vars(main))


def end(error):
    """End as Python does, without the second that freeing modules takes."""
    code = getattr(error, 'code', 1 if error else 0)
    if not isinstance(error, (SystemExit, type(None))):
        sys.excepthook(type(error), error, error.__traceback__)
    elif code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((code or 0) & 255)


if __name__ == '__main__':
    request = serve(sys.argv[1])
    try:
        start(**request)
    except BaseException as e:
        end(e)
    end(None)
