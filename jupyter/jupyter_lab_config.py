"""JupyterLab's settings for the course; `run.py lab` points JUPYTER_CONFIG_PATH at this folder."""

from pathlib import Path

c = get_config()  # noqa: F821  (JupyterLab defines it)
c.ServerApp.root_dir = str(Path(__file__).resolve().parents[1])
c.ServerApp.ip = "127.0.0.1"  # this computer only
c.ServerApp.terminals_enabled = True
c.LabApp.default_url = "/lab/tree/lessons/00_start.ipynb"  # a file on the command line opens, but is not printed
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.KernelManager.transport_encryption = "auto"  # else ipykernel 7.3 and later warn at each start
