#!/usr/bin/env python3
"""The course from a bare Python: makes .venv beside this file once, then hands over.

python3 run.py lab         the lessons in JupyterLab      (more arguments go to JupyterLab: --no-browser)
python3 run.py test        all tests, or the files named  (more arguments go to pytest: exercises/01_*.ipynb)
python3 run.py bench       timings, side by side
python3 run.py doctor      what is wrong with this machine, and what to type

--cpu, --cuda              take that build of torch, now and later. Without: where pip is configured its choice
                           stands, else the CUDA build where an NVIDIA driver is found, else the smaller CPU build.
On Windows type py in place of python3. Paths are seen from this file's folder.
"""

# Standard library only, and nothing that an old Python 3 cannot parse: it must still get to say what is wrong.
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent
WINDOWS = os.name == "nt"
ENV = ROOT / ".venv"
BIN = ENV / ("Scripts" if WINDOWS else "bin")
PY = str(BIN / ("python.exe" if WINDOWS else "python"))
STAMP = ENV / "course-stamp"  # "<hash> <build>": written after a finished install, "unfinished <build>" before it
RUN = ("py" if WINDOWS else "python3") + " run.py"
OLDEST = (3, 11)
PYTHON = tuple(sys.version_info[:2])
TORCH_WHEELS = "https://download.pytorch.org/whl/"
WINDOWS_CUDA = "cu130"  # CUDA of the default Linux wheel of torch 2.13; Windows' default wheel is the CPU build
DISK_GB = {"cpu": 2, "cuda": 8}  # .venv measured at 1.4 GB (CPU build); the CUDA build is an estimate
PIP_SOURCES = {"index-url", "extra-index-url", "find-links", "no-index", "constraint"}
EXTENSIONS = ("@jupyter-widgets/jupyterlab-manager", "anywidget")
# What .venv's own Python says of itself. -c puts the working folder on the path, so it is run from inside .venv.
PROBE = """
import json, sys
said = {}
try:
    import torch
    said.update(torch=torch.__version__, build="cuda" if torch.version.cuda else "cpu", gpu=torch.cuda.is_available())
except Exception as e:
    said["torch_error"] = f"{type(e).__name__}: {e}"
try:
    import bigbird_mini
    said["course"] = bigbird_mini.__file__
except Exception as e:
    said["course_error"] = f"{type(e).__name__}: {e}"
print(json.dumps(said))
"""


def too_old() -> str:
    """The sentence for a Python older than the course needs; empty where it is new enough."""
    if PYTHON >= OLDEST:
        return ""
    have = ".".join(map(str, sys.version_info[:3]))
    newer = "py -3.12 run.py lab" if WINDOWS else "python3.12 run.py lab"
    return f"Python 3.11 or newer is needed, and this is {have}. Install a newer one and start with it: {newer}"


def wanted() -> str:
    """What an install is made from: when this changes, it is made again. ROOT, since a moved folder breaks it."""
    parts = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    parts += [str(ROOT).encode(), repr(PYTHON).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def stamp() -> tuple:
    """The hash of the last finished install and the build of torch asked for ("cpu", "cuda" or "")."""
    words = STAMP.read_text().split() if STAMP.exists() else []
    return tuple([*words, "", ""][:2])


def env_python() -> tuple:
    """(major, minor) of .venv's Python; () where there is none that runs."""
    try:
        said = subprocess.run([PY, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True)
    except OSError:
        return ()
    return tuple(map(int, said.stdout.split())) if said.returncode == 0 else ()


def probe() -> dict:
    said = subprocess.run([PY, "-c", PROBE], cwd=ENV, capture_output=True, text=True)
    if said.returncode == 0:
        return json.loads(said.stdout.splitlines()[-1])
    return {"torch_error": f"Python stopped with code {said.returncode}", "course_error": "not reached"}


def gpu_driver() -> bool:
    places = [Path("/proc/driver/nvidia"), Path("/usr/lib/wsl/lib/nvidia-smi")]
    if WINDOWS:
        places = [Path(os.environ.get("SYSTEMROOT", "C:/Windows")) / "System32" / "nvidia-smi.exe"]
    return shutil.which("nvidia-smi") is not None or any(place.exists() for place in places)


def pip_sources() -> set:
    """The settings, in pip's files or in PIP_ variables, that tell pip where packages come from."""
    said = subprocess.run([PY, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    pairs = [line.partition("=")[::2] for line in said.splitlines()]
    pairs += [(name[4:].lower().replace("_", "-"), text) for name, text in os.environ.items() if name[:4] == "PIP_"]
    return PIP_SOURCES & {name.rpartition(".")[2] for name, text in pairs if text.strip("'\" ")}


def torch_index(build: str) -> list:
    """pip's arguments for the build of torch ("cpu", "cuda", or "" for no choice made)."""
    if sys.platform == "darwin" or pip_sources():
        return []
    if build == "cpu" or (not build and not gpu_driver()):
        return ["--extra-index-url", TORCH_WHEELS + "cpu"]
    return ["--extra-index-url", TORCH_WHEELS + WINDOWS_CUDA] if WINDOWS else []


def can_make_env() -> bool:
    """Debian's Python comes without ensurepip."""
    return None not in (importlib.util.find_spec("venv"), importlib.util.find_spec("ensurepip"))


def make_env() -> None:
    """A .venv with a working Python of this version and pip in it; what is there and works is kept."""
    works = env_python() == PYTHON
    if works:
        # What a killed pip leaves: parts under names with "~", and packages without INSTALLER, which it writes last.
        site = ENV / "Lib" if WINDOWS else ENV / "lib" / "python{}.{}".format(*PYTHON)
        for info in (site / "site-packages").glob("*.dist-info"):
            if not (info / "INSTALLER").exists():
                shutil.rmtree(info)
        for rest in (site / "site-packages").glob("~*"):
            shutil.rmtree(rest, ignore_errors=True)
        if subprocess.run([PY, "-m", "pip", "--version"], capture_output=True).returncode == 0:
            return
    if not can_make_env():
        sys.exit(f"This Python cannot make a virtual environment. {RUN} doctor says what to type.")
    made = subprocess.run([sys.executable, "-m", "venv", *([] if works else ["--clear"]), str(ENV)])
    if made.returncode:
        sys.exit(f"Making .venv failed. {RUN} doctor looks for the reason.")


def pip(*args: str) -> None:
    """pip install, in .venv: shows the large downloads as they come, and pip's own words where it fails."""
    command = [PY, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "-c", "constraints.txt", *args]
    lines = []
    env = dict(os.environ, PIP_USER="0", PYTHONIOENCODING="utf-8")
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=ROOT, env=env, encoding="utf-8", errors="replace", **streams) as process:
        for line in process.stdout:
            lines.append(line)
            if re.match(r"\s*(Downloading|Using cached) .*\([\d.]+ [MG]B\)", line):
                print("  " + line.strip(), flush=True)
            elif line.startswith("Installing collected packages"):
                print("  Unpacking ...", flush=True)
    if process.returncode:
        print("".join(line for line in lines[-40:] if not line.startswith("WARNING")), file=sys.stderr)
        sys.exit(
            "pip could not finish (above: its own words). The usual reasons are no network (behind a proxy: set "
            "HTTPS_PROXY), a full disk, or a Python that torch has no build for. "
            f"{RUN} doctor looks at the machine; then type the same command again, it goes on from here."
        )


def setup(build: str) -> None:
    """Installs the course into .venv, unless that is done. build: "cpu", "cuda", or "" to keep what was chosen."""
    if too_old():
        sys.exit(too_old())
    done, chosen = stamp()
    if done == wanted() and build in ("", chosen) and env_python() == PYTHON:
        return
    build = build or chosen
    print("Installing the course into .venv: once, 1 to 10 minutes by your network, 1.4 GB with torch's CPU build.")
    sys.stdout.flush()
    make_env()
    STAMP.write_text(f"unfinished {build}")
    index = torch_index(build)
    if build and probe().get("build", build) != build:
        pip("--force-reinstall", "--no-deps", *index, "torch")  # to pip, one build of a version is as good as another
    pip(*index, "-e", ".[lab,test]")
    if build and probe().get("build") != build:
        print(f"torch is not the {build} build: pip's configuration or this system decides that (pip config list).")
    STAMP.write_text(f"{wanted()} {build}")


def machine() -> Iterator:
    """doctor, first part: what can be seen without .venv, as ("ok" | "note" | "fix", sentence)."""
    if too_old():
        yield "fix", too_old()
        return
    yield "ok", f"Python {platform.python_version()}"
    if not can_make_env():
        yield "fix", "This Python lacks venv or ensurepip. On Debian and Ubuntu type: sudo apt install python3-venv"
    if sys.maxsize < 2**32 or (sys.platform == "darwin" and platform.machine() == "x86_64"):
        yield "fix", "torch has no builds for this Python: it must be a 64-bit one, and on a Mac one for Apple silicon"
    try:
        tempfile.TemporaryFile(dir=ROOT).close()
        yield "ok", "this folder can be written to"
    except OSError:
        yield "fix", f"No permission to write in {ROOT}: copy the course to a folder of your own"
    done, build = stamp()
    need = DISK_GB["cuda" if build == "cuda" or (gpu_driver() and build != "cpu") else "cpu"]
    free = shutil.disk_usage(ROOT).free / 1e9
    if done != wanted() and free < need:
        yield "fix", f"The install needs {need} GB of disk and {free:.1f} GB are free: make room"
    else:
        yield "ok", f"{free:.0f} GB of disk are free (an install needs {need} GB)"
    yield from installed()


def installed() -> Iterator:
    """doctor, second part: what is wrong in .venv."""
    if not ENV.exists():
        yield "fix", f"The course is not installed yet. Type: {RUN} lab"
    elif env_python() != PYTHON:
        yield "fix", f".venv does not work, or is another Python's. Type: {RUN} lab   (makes it anew)"
    elif stamp()[0] != wanted():
        yield "fix", f"The install is unfinished or out of date. Type: {RUN} lab   (goes on with it)"
    else:
        again = f"Delete the folder .venv, then type: {RUN} lab"
        found = probe()
        yield torch_finding(found, again)
        for name in EXTENSIONS:
            if (ENV / "share" / "jupyter" / "labextensions" / name / "package.json").exists():
                yield "ok", f"JupyterLab has {name}"
            else:
                yield "fix", f"JupyterLab lacks {name}, so widgets stay empty. {again}"
        if "course" not in found:
            yield "fix", f"bigbird_mini cannot be loaded ({found['course_error']}). {again}"
        elif ROOT not in Path(found["course"]).resolve().parents:
            yield "fix", f"bigbird_mini comes from another folder, {found['course']}. {again}"
        else:
            yield "ok", "bigbird_mini loads"


def torch_finding(found: dict, again: str) -> tuple:
    if "torch" not in found:
        return "fix", f"torch cannot be loaded ({found['torch_error']}). {again}"
    name = f"torch {found['torch']}"
    if found["gpu"]:
        return "ok", f"{name} sees the GPU"
    if found["build"] == "cpu" and gpu_driver():
        return "note", f"{name} works, on the CPU only. For the NVIDIA GPU ({DISK_GB['cuda']} GB): {RUN} lab --cuda"
    if found["build"] == "cpu":
        return "ok", f"{name}, the CPU build"
    if gpu_driver():
        return "fix", f"{name} cannot use the GPU. Update the NVIDIA driver, or type: {RUN} lab --cpu"
    # Wasteful, not broken; and where pip's configuration chose it, --cpu would not change it.
    return "note" if pip_sources() else "fix", f"{name} is for a GPU, and none is here. Type: {RUN} lab --cpu"


def doctor() -> int:
    said = list(machine())
    for kind, sentence in said:
        print(f"{kind:5}{sentence}")
    return 1 if "fix" in [kind for kind, _ in said] else 0


def trust(env: dict) -> None:
    """JupyterLab runs no scripts saved in a notebook that is not trusted: pictures would stand still."""
    folders = ("lessons", "exercises", "solutions")
    notebooks = [str(path) for folder in folders for path in sorted((ROOT / folder).glob("*.ipynb"))]
    command = [PY, "-m", "jupyter", "trust"]
    if notebooks and subprocess.run(command + notebooks, cwd=ROOT, env=env, capture_output=True).returncode:
        for path in notebooks:  # one damaged notebook stops the rest: find it
            if subprocess.run([*command, path], cwd=ROOT, env=env, capture_output=True).returncode:
                print(f"{path} cannot be read: it is damaged, and may look wrong in JupyterLab")


def hand_over(command: list, env: dict) -> int:
    sys.stdout.flush()
    if not WINDOWS:
        os.chdir(ROOT)
        os.execve(command[0], command, env)  # no process between: signals and the exit code are the program's own
    with subprocess.Popen(command, cwd=ROOT, env=env) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # it got Ctrl-C too, and may want to ask first (JupyterLab does)


def main(argv: list) -> int:
    builds = {word[2:] for word in argv if word in ("--cpu", "--cuda")}
    verb, *rest = [word for word in argv if word not in ("--cpu", "--cuda")] or [""]
    if verb not in ("lab", "test", "bench", "doctor") or len(builds) > 1:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    if verb == "doctor":
        return doctor()
    setup("".join(builds))
    settings = os.pathsep.join(filter(None, [str(ROOT / "jupyter"), os.environ.get("JUPYTER_CONFIG_PATH")]))
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    env = dict(os.environ, JUPYTER_CONFIG_PATH=settings, PATH=path, VIRTUAL_ENV=str(ENV))
    if verb == "bench":
        return hand_over([PY, "-m", "bigbird_mini.bench", *rest], env)
    if verb == "test":  # where no file is named, pytest takes testpaths from pyproject.toml
        return hand_over([PY, "-m", "pytest", "--nbval-lax", *rest], env)
    trust(env)
    root = ["--allow-root"] if not WINDOWS and os.geteuid() == 0 else []
    return hand_over([PY, "-m", "jupyter", "lab", *root, *rest], env)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print(f"\nStopped. The same command goes on from here: {RUN} {' '.join(sys.argv[1:])}", file=sys.stderr)
        sys.exit(130)
