"""What can be done here, one sentence each: `python3 -m nox -l`."""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "none"  # one shared environment: one per session costs 1.2 GB
nox.options.sessions = ["properties"]

ROOT = Path(__file__).parent
# One that hangs or dies costs the test that it was at; the tests of one law share a worker.
WORKERS = (
    f"--numprocesses={min(os.cpu_count() or 1, 8)}", "--dist=loadgroup",
    "--max-worker-restart=1000", "--timeout=300", "--timeout-method=thread",
)  # fmt: skip
SHARED = ROOT / ".nox" / "shared"
EXTRAS = "bench,report,profile,interop,triton,dev"


def python() -> str:
    """Return the interpreter of the shared environment, made first if need be.

    CONVHARNESS_PYTHON names an existing interpreter to be used as it is.
    """
    if given := os.environ.get("CONVHARNESS_PYTHON"):
        return given
    binaries = SHARED / ("Scripts" if os.name == "nt" else "bin")
    interpreter = str(binaries / "python")
    inputs = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    wanted = hashlib.sha256(b"\0".join([*inputs, sys.version.encode()])).hexdigest()
    stamp = SHARED / "stamp"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"making {SHARED}: torch and what the reports need, once", file=sys.stderr)
        venv.create(SHARED, with_pip=True, clear=True)
        pip = [interpreter, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        target = [*pip, "--constraint", "constraints.txt", "--editable", f".[{EXTRAS}]"]
        subprocess.run(target, cwd=ROOT, check=True)
        stamp.write_text(wanted, encoding="utf-8")
    return interpreter


def run(session: nox.Session, *command: str) -> None:
    """Run a Python module of the shared environment from the root of the checkout."""
    session.chdir(ROOT)
    session.run(python(), "-m", *command, external=True)


def run_built(session: nox.Session, *command: str) -> None:
    """Run a module after what implementations need is built; without a compiler they are left out."""
    session.chdir(ROOT)
    build = (python(), "-m", "harness", "build")
    session.run(*build, external=True, success_codes=[0, 1])
    run(session, *command)


@nox.session
def properties(session: nox.Session) -> None:
    """Check every law over every available implementation; arguments go to pytest."""
    run_built(session, "pytest", "properties", *WORKERS, *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Judge every law over every implementation, round after round, for 30 minutes."""
    run_built(session, "harness", "soak", *session.posargs)


@nox.session
def kernels(session: nox.Session) -> None:
    """Check every law over the Triton kernels by Triton's interpreter; compile them for a GPU."""
    files = ("properties/test_interpreted.py", "impls/tests/test_kernels.py")
    run(session, "pytest", *files, *WORKERS, "--hypothesis-profile=ci", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Print how many cases every law needs to refute every mutant."""
    run_built(session, "harness", "mutants", *session.posargs)


@nox.session
def rates(session: nox.Session) -> None:
    """Measure the law engine: cases a minute, by variant and by law."""
    run_built(session, "harness", "rates", *session.posargs)


@nox.session
def calibrate(session: nox.Session) -> None:
    """Time code against itself and against a planted slowdown: false alarms and power."""
    run(session, "harness", "calibrate", *session.posargs)


@nox.session
def crossover(session: nox.Session) -> None:
    """Sweep mask densities: from which one on does a mask-aware implementation win?"""
    run_built(session, "harness", "crossover", *session.posargs)


@nox.session
def break_even(session: nox.Session) -> None:
    """Measure after how many calls a compiled form has paid for its compilation."""
    run_built(session, "harness", "break-even", *session.posargs)


@nox.session
def goals(session: nox.Session) -> None:
    """Measure what every operation costs against what it may cost."""
    run_built(session, "harness", "goals", *session.posargs)


@nox.session
def growth(session: nox.Session) -> None:
    """Fit how the time grows with every size; `-- --search` hunts for growth beyond what is declared."""
    run_built(session, "harness", "growth", *session.posargs)


@nox.session
def losses(session: nox.Session) -> None:
    """Search for cases where the table chooses what is slower than the reference."""
    run_built(session, "harness", "losses", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Check, time, and write the page; arguments go to `harness bench`."""
    run_built(session, "harness", "bench", *session.posargs)


@nox.session
def report(session: nox.Session) -> None:
    """Write the page of a run: `nox -s report -- RUN`."""
    run(session, "harness", "report", *session.posargs)


@nox.session
def profile(session: nox.Session) -> None:
    """Record traces and operator tables; arguments go to `harness profile`."""
    run_built(session, "harness", "profile", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting and the direction of imports."""
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")
    script = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    session.run(python(), "-c", script, external=True)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of harness and reports strictly."""
    run(session, "mypy")


@nox.session
def selftest(session: nox.Session) -> None:
    """Test the harness, the reports and what carries layers, examples in docstrings included."""
    folders = ("harness", "reports", "impls/tests")
    run_built(session, "pytest", *folders, "--doctest-modules", *session.posargs)


@nox.session
def readme(session: nox.Session) -> None:
    """Rewrite the generated table of the README; `-- --check` only compares."""
    run(session, "harness.readme", *session.posargs)
