"""What was tried last can be read after its process is gone."""

import os
import signal
import subprocess
import sys

from harness import flight

DIES = """
import os, signal
from harness import flight
flight.fly_as("worker", None)
flight.note("plain/library/G1 " + "n1 c1>1 i9 k1 " * 200)
flight.note("plain/library/G1 n1 c1>1 i3 k1")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_last_flight_outlives_its_process(tmp_path):
    environment = {**os.environ, flight.FOLDER: str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", DIES], check=False, env=environment)
    assert ended.returncode == -signal.SIGKILL
    assert flight.last(tmp_path, "worker") == "plain/library/G1 n1 c1>1 i3 k1"


def test_nothing_noted_is_nothing_read(tmp_path, monkeypatch):
    monkeypatch.delenv(flight.FOLDER, raising=False)
    flight.note("goes nowhere")
    assert not flight.last(tmp_path)
