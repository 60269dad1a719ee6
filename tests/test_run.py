"""run.py: what it decides, with a fake machine under it. .ci/run makes a real install, in a fresh clone."""

import ast
import json
import re
import runpy
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest

REPO = Path(__file__).resolve().parents[1]
CPU = ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
CUDA = ["--extra-index-url", "https://download.pytorch.org/whl/cu130"]
HEALTHY = {"torch": "2.13.0+cpu", "build": "cpu", "gpu": False}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run.py as a module whose folder is a temporary one: Linux, no pip settings, no GPU, nothing installed."""
    spec = spec_from_file_location("run_under_test", REPO / "run.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    env = tmp_path / ".venv"
    for name, value in {"ROOT": tmp_path, "ENV": env, "STAMP": env / "course-stamp", "WINDOWS": False}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "PY", str(env / "bin" / "python"))
    monkeypatch.setattr(module, "RUN", "python3 run.py")
    monkeypatch.setattr(module, "gpu_driver", lambda: False)
    monkeypatch.setattr(module, "can_make_env", lambda: True)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("one")
    return module


@pytest.fixture
def pip_config(run, monkeypatch):
    """pip's answer to "pip config list", to be filled by the test; no PIP_ variables."""
    for name in [name for name in run.os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    lines = []
    fake = SimpleNamespace(run=lambda *a, **k: SimpleNamespace(stdout="\n".join(lines), returncode=0))
    monkeypatch.setattr(run, "subprocess", fake)
    return lines


@pytest.fixture
def installs(run, monkeypatch):
    """Setting up without doing it: the list of pip's arguments, one entry for each call of pip."""
    calls = []

    def make_env():
        run.ENV.mkdir(exist_ok=True)
        monkeypatch.setattr(run, "env_python", lambda: run.PYTHON)

    monkeypatch.setattr(run, "env_python", lambda: ())
    monkeypatch.setattr(run, "make_env", make_env)
    monkeypatch.setattr(run, "pip_sources", set)
    monkeypatch.setattr(run, "probe", lambda: dict(HEALTHY))
    monkeypatch.setattr(run, "pip", lambda *args: calls.append(list(args)))
    return calls


@pytest.fixture
def handed(run, monkeypatch):
    """What main() would start, after a set-up that is taken for done: (arguments after "-m", environment)."""
    started = []
    monkeypatch.setattr(run, "setup", lambda build: started.append(build))
    monkeypatch.setattr(run, "trust", lambda env: None)
    monkeypatch.setattr(run, "hand_over", lambda command, env: started.append((command[2:], env)) or 0)
    return started


# --- which build of torch ---------------------------------------------------------------------------------------


def test_without_a_gpu_the_cpu_build_is_taken(run, pip_config):
    assert run.torch_index("") == CPU


def test_a_gpu_driver_or_a_word_gives_the_cuda_build(run, pip_config, monkeypatch):
    assert run.torch_index("cuda") == []  # Linux' default wheel
    monkeypatch.setattr(run, "gpu_driver", lambda: True)
    assert run.torch_index("") == []
    assert run.torch_index("cpu") == CPU


def test_windows_default_wheel_is_the_cpu_build(run, pip_config, monkeypatch):
    monkeypatch.setattr(run, "WINDOWS", True)
    assert run.torch_index("") == CPU
    assert run.torch_index("cuda") == CUDA


def test_a_mac_has_one_build(run, pip_config, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert run.torch_index("") == run.torch_index("cuda") == []


@pytest.mark.parametrize("setting", ["index-url", "extra-index-url", "find-links", "no-index", "constraint"])
@pytest.mark.parametrize("section", ["global.", "install.", ":env:."])
def test_where_pip_is_configured_its_choice_stands(run, pip_config, section, setting):
    pip_config += ["global.cert='/some/file'", f"{section}{setting}='https://packages.example'"]
    assert run.pip_sources() == {setting}
    assert run.torch_index("") == run.torch_index("cpu") == []


def test_pips_variables_count_and_other_settings_do_not(run, pip_config, monkeypatch):
    pip_config += ["global.cert='/some/file'", "global.timeout='60'", ":env:.find-links=''"]
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert run.torch_index("") == CPU
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://packages.example")
    assert run.torch_index("") == []


def test_an_nvidia_driver_is_found_by_its_tool(run, monkeypatch, tmp_path):
    fresh = runpy.run_path(str(REPO / "run.py"))
    monkeypatch.setitem(
        fresh["gpu_driver"].__globals__, "Path", lambda place: tmp_path / "none" / str(place).strip("/")
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(fresh["gpu_driver"].__globals__, "WINDOWS", False)
    assert not fresh["gpu_driver"]()
    monkeypatch.setattr(fresh["shutil"], "which", lambda name: {"nvidia-smi": "/usr/bin/nvidia-smi"}.get(name))
    assert fresh["gpu_driver"]()


# --- when to install --------------------------------------------------------------------------------------------


def test_an_install_is_made_once(run, installs):
    run.setup("")
    assert installs == [[*CPU, "-e", ".[lab,test]"]]
    run.setup("")
    assert len(installs) == 1


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_change_of_what_it_was_made_from_makes_it_again(run, installs, name):
    run.setup("")
    (run.ROOT / name).write_text("two")
    run.setup("")
    assert len(installs) == 2


def test_so_does_another_python_or_another_folder(run, installs, monkeypatch, tmp_path):
    run.setup("")
    before = run.wanted()
    monkeypatch.setattr(run, "PYTHON", (3, 99))
    assert run.wanted() != before
    run.setup("")
    assert len(installs) == 2
    before = run.wanted()
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / "moved").mkdir(exist_ok=True)
        (tmp_path / "moved" / name).write_text("one")
    monkeypatch.setattr(run, "ROOT", tmp_path / "moved")
    assert run.wanted() != before


def test_an_interrupted_install_goes_on(run, installs, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "pip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.setup("cpu")
    assert run.stamp() == ("unfinished", "cpu")
    monkeypatch.setattr(run, "pip", lambda *args: installs.append(list(args)))
    run.setup("")
    assert len(installs) == 1
    assert run.stamp() == (run.wanted(), "cpu")  # and with the build that was asked for


def test_a_python_that_no_longer_runs_is_noticed(run, installs, monkeypatch):
    run.setup("")
    monkeypatch.setattr(run, "env_python", lambda: ())
    run.setup("")
    assert len(installs) == 2


def test_a_build_once_chosen_stays(run, installs, monkeypatch, capsys):
    run.setup("")
    run.setup("cuda")  # the fake machine goes on saying "cpu", as one whose pip knows no CUDA build would
    assert installs[1:] == [["--force-reinstall", "--no-deps", "torch"], ["-e", ".[lab,test]"]]
    assert "torch is not the cuda build" in capsys.readouterr().out
    run.setup("")
    run.setup("cuda")
    assert len(installs) == 3
    monkeypatch.setattr(run, "probe", lambda: dict(HEALTHY, build="cuda"))
    run.setup("cpu")
    assert installs[3] == ["--force-reinstall", "--no-deps", *CPU, "torch"]


def test_asking_for_the_build_that_is_there_reinstalls_nothing(run, installs):
    run.setup("cpu")
    assert installs == [[*CPU, "-e", ".[lab,test]"]]


@pytest.mark.parametrize(
    ("works", "pip_works", "made"), [((), False, ["--clear"]), (True, False, []), (True, True, None)]
)
def test_a_broken_env_is_made_anew_and_one_without_pip_gets_it(run, monkeypatch, works, pip_works, made):
    commands = []

    def fake(command, **rest):
        commands.append(command)
        return SimpleNamespace(returncode=0 if "venv" in command or pip_works else 1)

    monkeypatch.setattr(run, "env_python", lambda: run.PYTHON if works else ())
    monkeypatch.setattr(run.subprocess, "run", fake)
    run.make_env()
    venvs = [command[3:] for command in commands if "venv" in command]
    assert venvs == ([] if made is None else [[*made, str(run.ENV)]])


def test_half_installed_packages_are_cleared_away(run, monkeypatch):
    site = run.ENV / "lib" / "python{}.{}".format(*run.PYTHON) / "site-packages"
    for folder in ("whole-1.dist-info", "half-1.dist-info", "~olf", "whole"):
        (site / folder).mkdir(parents=True)
        (site / folder / "METADATA").touch()
    (site / "whole-1.dist-info" / "INSTALLER").touch()
    monkeypatch.setattr(run, "env_python", lambda: run.PYTHON)
    monkeypatch.setattr(run.subprocess, "run", lambda *a, **k: SimpleNamespace(returncode=0))
    run.make_env()
    assert sorted(path.name for path in site.iterdir()) == ["whole", "whole-1.dist-info"]


def fake_pip(run, monkeypatch, code):
    monkeypatch.setattr(run, "PY", sys.executable)
    real = subprocess.Popen
    monkeypatch.setattr(run.subprocess, "Popen", lambda command, **k: real([sys.executable, "-c", code], **k))


def test_what_pip_says_is_kept_short(run, monkeypatch, capsys):
    lines = ["WARNING: noise", "  Downloading torch-2.whl (190.5 MB)", "  Downloading six.whl (11 kB)"]
    fake_pip(run, monkeypatch, f"print({chr(10).join(lines)!r})")
    run.pip("torch")
    assert capsys.readouterr().out == "  Downloading torch-2.whl (190.5 MB)\n"


def test_where_pip_fails_its_words_are_shown_and_what_to_try(run, monkeypatch, capfd):
    fake_pip(run, monkeypatch, "print('WARNING: noise'); print('ERROR: no space left'); raise SystemExit(1)")
    with pytest.raises(SystemExit, match=r"no network .* a full disk.* type the same command again"):
        run.pip("torch")
    assert capfd.readouterr().err.strip() == "ERROR: no space left"


# --- what is handed over ----------------------------------------------------------------------------------------


def test_test_passes_its_arguments_on(run, handed):
    assert run.main(["test", "exercises/01_masks.ipynb", "-x"]) == 0
    assert handed[0] == ""
    assert handed[1][0] == ["pytest", "--nbval-lax", "exercises/01_masks.ipynb", "-x"]


def test_without_a_file_pytest_takes_the_default_folders(run, handed):
    run.main(["test", "-x"])
    assert handed[1][0] == ["pytest", "--nbval-lax", "-x"]
    options = tomllib.loads((REPO / "pyproject.toml").read_text("utf8"))["tool"]["pytest"]["ini_options"]
    assert options["testpaths"] == ["tests", "lessons", "solutions"]


def test_the_choice_of_torch_is_not_passed_on(run, handed):
    run.main(["test", "--cuda", "-x"])
    assert handed[0] == "cuda"
    assert handed[1][0] == ["pytest", "--nbval-lax", "-x"]
    run.main(["--cpu", "bench", "--quick"])
    assert handed[2] == "cpu"
    assert handed[3][0] == ["bigbird_mini.bench", "--quick"]


def test_lab_uses_the_settings_of_the_repository(run, handed, monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/of/the/learner")
    monkeypatch.setattr(run.os, "geteuid", lambda: 0, raising=False)
    run.main(["lab", "--no-browser"])
    command, env = handed[1]
    assert command == ["jupyter", "lab", "--allow-root", "--no-browser"]
    assert env["JUPYTER_CONFIG_PATH"].split(run.os.pathsep) == [str(run.ROOT / "jupyter"), "/of/the/learner"]
    assert env["PATH"].startswith(str(run.BIN))
    monkeypatch.setattr(run.os, "geteuid", lambda: 1000, raising=False)
    run.main(["lab"])
    assert handed[3][0] == ["jupyter", "lab"]


def test_jupyterlab_is_told_to_open_the_first_lesson_on_this_computer_only():
    config = SimpleNamespace(**{name: SimpleNamespace() for name in ("ServerApp", "LabApp", "KernelManager")})
    runpy.run_path(str(REPO / "jupyter" / "jupyter_lab_config.py"), {"get_config": lambda: config})
    assert config.ServerApp.ip == "127.0.0.1"
    assert Path(config.ServerApp.root_dir) == REPO
    lesson = config.LabApp.default_url.removeprefix("/lab/tree/")
    assert (REPO / lesson).is_file()


def test_jupyterlab_asks_no_question_about_news():
    settings = json.loads((REPO / "jupyter" / "labconfig" / "default_setting_overrides.json").read_text("utf8"))
    assert settings["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
    assert "recordTiming" not in json.dumps(settings)  # it would change every notebook that is run


def test_one_damaged_notebook_does_not_leave_the_others_untrusted(run, monkeypatch, capsys):
    for name in ("00.ipynb", "01.ipynb"):
        (run.ROOT / "lessons").mkdir(exist_ok=True)
        (run.ROOT / "lessons" / name).touch()
    trusted = []

    def fake(command, **rest):
        paths = [Path(word).name for word in command[4:]]
        trusted.extend(name for name in paths if "00.ipynb" not in paths)
        return SimpleNamespace(returncode=int("00.ipynb" in paths))

    monkeypatch.setattr(run.subprocess, "run", fake)
    run.trust({})
    assert trusted == ["01.ipynb"]
    assert "00.ipynb cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["lap"], ["-x"], ["lab", "--cpu", "--cuda"]])
def test_anything_else_gets_the_usage(run, handed, capsys, argv):
    assert run.main(argv) == 2
    assert handed == []
    assert "python3 run.py doctor" in capsys.readouterr().err


def test_on_windows_ctrl_c_is_left_to_the_program(run, monkeypatch):
    answers = [KeyboardInterrupt(), 7]

    class Child:
        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *error: None  # noqa: E731

        def wait(self):
            answer = answers.pop(0)
            if isinstance(answer, KeyboardInterrupt):
                raise answer
            return answer

    monkeypatch.setattr(run, "WINDOWS", True)
    monkeypatch.setattr(run.subprocess, "Popen", lambda *a, **k: Child())
    assert run.hand_over(["x"], {}) == 7


def test_ctrl_c_while_installing_ends_quietly(tmp_path):
    code = (
        "import runpy, subprocess, sys\n"
        "def stop(*a, **k): raise KeyboardInterrupt\n"
        "subprocess.run = stop\n"
        f"sys.argv = ['run.py', 'test']\nrunpy.run_path({str(tmp_path / 'run.py')!r}, run_name='__main__')"
    )
    for name in ("run.py", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((REPO / name).read_bytes())
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert said.returncode == 130
    assert re.fullmatch(r"Stopped. The same command goes on from here: \w+ run\.py test", said.stderr.strip())


# --- an old Python ----------------------------------------------------------------------------------------------


def test_an_old_python_can_parse_it():
    ast.parse((REPO / "run.py").read_text("utf8"), feature_version=(3, 8))


@pytest.mark.parametrize("verb", ["lab", "test", "doctor"])
def test_an_old_python_is_told_so(monkeypatch, capsys, verb):
    monkeypatch.setattr(sys, "version_info", (3, 8, 18, "final", 0))
    monkeypatch.setattr(sys, "argv", ["run.py", verb])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(REPO / "run.py"), run_name="__main__")
    said = str(stop.value.code) + capsys.readouterr().out
    assert "Python 3.11 or newer is needed, and this is 3.8.18" in said
    assert stop.value.code not in (0, None)


# --- doctor -----------------------------------------------------------------------------------------------------


@pytest.fixture
def well(run, monkeypatch):
    """A machine on which all is well; each fault below is put into it."""
    found = dict(HEALTHY, course=str(run.ROOT / "bigbird_mini" / "__init__.py"))
    for name in run.EXTENSIONS:
        folder = run.ENV / "share" / "jupyter" / "labextensions" / name
        folder.mkdir(parents=True)
        (folder / "package.json").touch()
    run.STAMP.write_text(run.wanted())
    monkeypatch.setattr(run, "probe", lambda: found)
    monkeypatch.setattr(run, "pip_sources", set)
    monkeypatch.setattr(run, "env_python", lambda: run.PYTHON)
    monkeypatch.setattr(run.shutil, "disk_usage", lambda path: SimpleNamespace(free=50e9))
    monkeypatch.setattr(run.platform, "machine", lambda: "x86_64")
    return found


def fault_no_venv(run, found, patch):
    patch(run, "can_make_env", lambda: False)


def fault_mac_with_intel(run, found, patch):
    patch(sys, "platform", "darwin")


def fault_read_only(run, found, patch):
    def refuse(dir):
        raise PermissionError

    patch(run.tempfile, "TemporaryFile", refuse)


def fault_disk(run, found, patch):
    run.STAMP.unlink()
    patch(run.shutil, "disk_usage", lambda path: SimpleNamespace(free=1.2e9))


def fault_not_installed(run, found, patch):
    run.shutil.rmtree(run.ENV)


def fault_other_python(run, found, patch):
    patch(run, "env_python", lambda: (3, 10))


def fault_unfinished(run, found, patch):
    run.STAMP.write_text("unfinished ")


def fault_no_torch(run, found, patch):
    found.pop("torch")
    found["torch_error"] = "ModuleNotFoundError: No module named 'torch'"


def fault_cuda_build_without_gpu(run, found, patch):
    found.update(torch="2.13.0+cu130", build="cuda")


def fault_old_driver(run, found, patch):
    found.update(torch="2.13.0+cu130", build="cuda")
    patch(run, "gpu_driver", lambda: True)


def fault_no_widgets(run, found, patch):
    run.shutil.rmtree(run.ENV / "share" / "jupyter" / "labextensions" / "@jupyter-widgets")


def fault_no_anywidget(run, found, patch):
    run.shutil.rmtree(run.ENV / "share" / "jupyter" / "labextensions" / "anywidget")


def fault_no_course(run, found, patch):
    found.pop("course")
    found["course_error"] = "ModuleNotFoundError: No module named 'bigbird_mini'"


def fault_other_course(run, found, patch):
    found["course"] = "/somewhere/else/bigbird_mini/__init__.py"


FAULTS = {
    fault_no_venv: r"lacks venv or ensurepip.* sudo apt install python3-venv",
    fault_mac_with_intel: r"torch has no builds for this Python",
    fault_read_only: r"No permission to write in .*: copy the course",
    fault_disk: r"The install needs 2 GB of disk and 1\.2 GB are free: make room",
    fault_not_installed: r"not installed yet\. Type: python3 run\.py lab",
    fault_other_python: r"\.venv does not work, or is another Python's\. Type: python3 run\.py lab",
    fault_unfinished: r"unfinished or out of date\. Type: python3 run\.py lab",
    fault_no_torch: r"torch cannot be loaded \(ModuleNotFoundError.*Delete the folder \.venv",
    fault_cuda_build_without_gpu: r"is for a GPU, and none is here\. Type: python3 run\.py lab --cpu",
    fault_old_driver: r"cannot use the GPU\. Update the NVIDIA driver, or type: python3 run\.py lab --cpu",
    fault_no_widgets: r"lacks @jupyter-widgets/jupyterlab-manager, so widgets stay empty\. Delete",
    fault_no_anywidget: r"lacks anywidget, so widgets stay empty\. Delete the folder \.venv",
    fault_no_course: r"bigbird_mini cannot be loaded \(ModuleNotFoundError.*Delete the folder \.venv",
    fault_other_course: r"bigbird_mini comes from another folder, .*Delete the folder \.venv",
}


def test_doctor_is_content_with_a_machine_that_works(run, well, capsys):
    assert run.doctor() == 0
    assert {line[:5] for line in capsys.readouterr().out.splitlines()} == {"ok   "}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_doctor_names_the_fault_and_what_to_do(run, well, monkeypatch, capsys, fault):
    fault(run, well, monkeypatch.setattr)
    assert run.doctor() == 1
    fixes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fix")]
    assert any(re.search(FAULTS[fault], line) for line in fixes), fixes


def test_doctor_only_mentions_a_gpu_that_is_not_used(run, well, monkeypatch, capsys):
    monkeypatch.setattr(run, "gpu_driver", lambda: True)
    assert run.doctor() == 0
    assert re.search(r"^note torch .* the CPU only.* python3 run\.py lab --cuda$", capsys.readouterr().out, re.M)


def test_doctor_does_not_quarrel_with_pips_configuration(run, well, monkeypatch, capsys):
    well.update(torch="2.13.0", build="cuda")
    monkeypatch.setattr(run, "pip_sources", lambda: {"index-url"})
    assert run.doctor() == 0
    assert "note torch 2.13.0 is for a GPU" in capsys.readouterr().out


def test_a_full_disk_does_not_matter_once_all_is_installed(run, well, monkeypatch):
    monkeypatch.setattr(run.shutil, "disk_usage", lambda path: SimpleNamespace(free=0.5e9))
    assert run.doctor() == 0


def test_doctor_makes_nothing(run, capsys):
    before = sorted(run.ROOT.rglob("*"))
    assert run.doctor() == 1
    assert sorted(run.ROOT.rglob("*")) == before


def test_the_probe_tells_what_doctor_asks_for(run, monkeypatch):
    """The real probe, in the Python of this test: the names above are the ones it gives."""
    run.ENV.mkdir()
    monkeypatch.setattr(run, "PY", sys.executable)
    found = run.probe()
    assert set(found) == {"torch", "build", "gpu", "course"}
    assert Path(found["course"]).parent == REPO / "bigbird_mini"


def test_the_hooks_and_the_course_use_one_ruff():
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (REPO / "constraints.txt").read_text("utf8"), re.M))
    hooks = re.findall(r"ruff==([\w.]+)", (REPO / ".pre-commit-config.yaml").read_text("utf8"))
    assert hooks and set(hooks) == {pins["ruff"]}
