"""Checkpoints: what is written replaces all of the old or nothing, and is refused before that where it cannot be."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from checkpoints import CONFIG, inside, same, weights
from safetensors.torch import load_file

from bigbird_mini.checkpoint import read, write


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "model", CONFIG, weights())
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("config", "tensors", "error", "says"),
    [
        ([], {}, TypeError, "a config must be a dict, not list"),
        ({"a": {1}}, {}, TypeError, r"config\['a'\]=\{1\} cannot be stored as JSON"),
        ({"a": float("nan")}, {}, TypeError, r"config\['a'\]=nan cannot be stored as JSON"),
        ({}, {"a": [1]}, TypeError, "weights must be tensors by name, not 'a': list"),
        ({}, {1: torch.ones(1)}, TypeError, "weights must be tensors by name, not 1: Tensor"),
        ({}, {"a": torch.ones(2, device="meta")}, ValueError, "'a' is on the device meta, without values"),
        ({}, {"a": torch.eye(2).to_sparse()}, ValueError, "'a' is torch.sparse_coo, not dense"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(tmp_path, config, tensors, error, says):
    with pytest.raises(error, match=says):
        write(tmp_path / "new", config, tensors)
    assert not (tmp_path / "new").exists()


def test_a_full_disk_loses_nothing(folder, monkeypatch):
    def full(tensors, file, metadata):
        Path(file).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(
        OSError, match=r"model could not be written \(No space left on device\); what was there is as it"
    ):
        write(folder, {}, weights(1))
    assert inside(folder) == ["config.json", "model.safetensors"]
    config, found = read(folder)
    assert config == CONFIG and same(found, weights())


def test_a_limit_of_the_system_loses_nothing(folder):
    """The same for real: the operating system refuses files beyond 20,000 bytes."""
    pytest.importorskip("resource", reason="only where the operating system can limit files")
    code = """
import resource, signal, sys, torch
from bigbird_mini import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    checkpoint.write(sys.argv[1], {}, {"a": torch.ones(100, 100)})
except OSError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert "could not be written (" in ran.stdout and "what was there is as it was" in ran.stdout
    assert inside(folder) == ["config.json", "model.safetensors"] and same(read(folder)[1], weights())


@pytest.mark.parametrize(("failing", "says"), [(1, "what was there is as it was"), (2, "model.safetensors is the new")])
def test_a_file_that_cannot_be_replaced_is_told(folder, monkeypatch, failing, says):
    calls, replace = [], Path.replace

    def locked(self, target):
        calls.append(target)
        if len(calls) == failing:
            raise PermissionError(errno.EACCES, "Permission denied")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", locked)
    with pytest.raises(OSError, match=rf"could not be written \(Permission denied\); {says}"):
        write(folder, {"new": 1}, weights(1))
    monkeypatch.undo()
    config, found = read(folder)
    assert len(inside(folder)) == 2 and config == CONFIG and same(found, weights(failing - 1))


def test_a_folder_that_cannot_be_made_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match=r"file could not be written \(.*exist"):
        write(tmp_path / "file", {}, weights())
    assert (tmp_path / "file").read_text() == "mine"

    def refuse(*_args, **_kw):
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OSError, match=r"could not be written \(Read-only file system\).* Choose a folder that you may"):
        write(tmp_path / "new", {}, weights())


def test_what_is_written_is_on_the_disk_before_it_takes_its_place(folder, monkeypatch):
    order, fsync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("sync"), fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (order.append(to.name), replace(self, to))[1])
    write(folder, {}, weights(1))
    assert order == ["sync", "sync", "model.safetensors", "config.json"]
    assert same(load_file(folder / "model.safetensors"), weights(1))
