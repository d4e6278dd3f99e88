"""Make the virtual environment and install a lock file into it: `python3 infrastructure/local/bootstrap.py
embedded|dev`.

Runs on a machine with nothing but Python, before the project is installed, so it imports only the standard library
and is called by path. It does nothing if the environment matches the lock already: a stamp file per lock holds a
digest of everything that the installation depends on.
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

PYTHON_MIN = (3, 11)
# The newest one that the tests were run on. Newer ones are not refused: mostly all packages exist for them.
PYTHON_TESTED = (3, 13)

# Any `python3` may run this file, so its syntax is one that even an old one (3.6 and later) can read, to say what
# is wrong.
if sys.version_info < PYTHON_MIN:
    found = ".".join(str(part) for part in sys.version_info[:2])
    sys.exit(
        f"This project needs Python 3.11 or newer; {sys.executable} is Python {found}.\n"
        "Install a newer one and name it: make up PYTHON=python3.12"
    )

RUNNING_VERSION = sys.version.split()[0]
ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
# Exists during an installation: an interrupted one may leave half a package, which pip takes for whole.
UNDER_WAY = VENV / "installing"
# A lock on the left also holds everything of those on the right, in the same versions.
COVERS = {"embedded": ("embedded",), "dev": ("dev", "embedded")}


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def fail(text: str) -> None:
    sys.exit("\n" + text)


def venv_settings() -> dict[str, str]:
    """The settings of the virtual environment; empty if there is none."""
    try:
        text = (VENV / "pyvenv.cfg").read_text()
    except OSError:
        return {}
    return dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)


def digest(lock: str) -> str:
    """A digest of what an installation of `lock` depends on.

    The lock, the project's metadata, this script, and the interpreter and place of the virtual environment.
    """
    hasher = hashlib.sha256(f"{venv_settings().get('version')} {ROOT}".encode())
    for part in (ROOT / "requirements" / f"{lock}.lock", ROOT / "pyproject.toml", Path(__file__)):
        hasher.update(part.read_bytes())
    return hasher.hexdigest()


def stamp_path(lock: str) -> Path:
    return VENV / f"installed-{lock}.sha256"


def is_current(lock: str, this_python: bool) -> bool:
    """Is all of `lock` installed, and, with `this_python`, by the interpreter that runs this?"""
    if this_python and venv_settings().get("version") != RUNNING_VERSION:
        return False
    stamp = stamp_path(lock)
    return VENV_PYTHON.exists() and stamp.exists() and stamp.read_text() == digest(lock)


def run(*arguments: str, quiet: bool = False) -> bool:
    """Run a command; its errors go to the terminal unless `quiet`. True when it succeeded."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    # Without the user's settings that would bring in other packages, or install ours elsewhere.
    for name in ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV"):
        environment.pop(name, None)
    streams = subprocess.DEVNULL if quiet else None
    return subprocess.run(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=streams).returncode == 0


def make_venv() -> None:
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        fail(
            f"{sys.executable} comes without the modules that make a virtual environment (venv, ensurepip).\n"
            f"On Debian and Ubuntu they are a package of their own: sudo apt install python{version}-venv\n"
            "Then run the same command again, or name another interpreter: make up PYTHON=/path/to/python3"
        )
    say(f"· virtual environment in {VENV.name}/ with Python {RUNNING_VERSION}")
    # Left by an interrupted run, or of another interpreter: making it again is cheaper than repairing it.
    shutil.rmtree(VENV, ignore_errors=True)
    if not run(sys.executable, "-m", "venv", str(VENV)):
        fail(f"Could not make the virtual environment {VENV}; the messages above say why.")


def is_usable(this_python: bool) -> bool:
    """Can the existing environment be kept? It must be made here and whole, have pip, and a new enough interpreter.

    With `this_python` it must also be of the version of the interpreter that runs this.
    """
    settings = venv_settings()
    # Scripts in an environment contain its path: one that was moved or copied does not work.
    if UNDER_WAY.exists() or not VENV_PYTHON.exists() or not settings.get("command", str(VENV)).endswith(str(VENV)):
        return False
    if this_python and settings.get("version") != RUNNING_VERSION:
        return False
    test = f"import pip, sys; sys.exit(sys.version_info < {PYTHON_MIN})"
    return run(str(VENV_PYTHON), "-c", test, quiet=True)


def pip(*arguments: str, quiet: bool = False) -> bool:
    return run(str(VENV_PYTHON), "-m", "pip", "install", "--quiet", *arguments, quiet=quiet)


def about_the_interpreter() -> str:
    """Advice if packages may be missing because of the environment's interpreter; else empty."""
    major, minor = (int(part) for part in str(venv_settings().get("version", "0.0")).split(".")[:2])
    first, last = (".".join(map(str, version)) for version in (PYTHON_MIN, PYTHON_TESTED))
    if (major, minor) > PYTHON_TESTED:
        problem = f"is newer than those that this version was tested with ({first} to {last})"
    elif any(VENV.glob("lib/python*t")):
        problem = (
            f"without the global interpreter lock is not one that this version was tested with ({first} to {last})"
        )
    else:
        return ""
    return (
        f"Python {major}.{minor} {problem};\n"
        f"some packages may not exist for it. Try one of those: make up PYTHON=python{last}\n"
    )


def install_packages(lock: str) -> None:
    say(f"· packages of requirements/{lock}.lock")
    # --no-deps: the lock is complete, so pip need not resolve anything. --no-compile: modules are compiled at their
    # first import, and unused ones never.
    locked = (
        "--require-hashes",
        "--no-deps",
        "--no-compile",
        "-r",
        str(ROOT / "requirements" / f"{lock}.lock"),
    )
    if not pip("--only-binary", ":all:", *locked):
        fail(
            f"Could not install requirements/{lock}.lock; the messages above say why.\n{about_the_interpreter()}"
            "A proxy or a package mirror is set in pip's own configuration: python3 -m pip config list"
        )
    # The build backend is in the lock, so that this step needs no network.
    if not pip("--no-deps", "--no-build-isolation", "--no-index", "--editable", str(ROOT)):
        fail("Could not install the project itself into the virtual environment; the messages above say why.")


def set_up(lock: str, this_python: bool) -> None:
    start = time.monotonic()
    say("Setting up (only the first time, and when the lock file changes)")
    if not is_usable(this_python):
        make_venv()
    for covered in COVERS:
        stamp_path(covered).unlink(missing_ok=True)
    UNDER_WAY.touch()
    try:
        install_packages(lock)
    except SystemExit:
        # If pip itself reports the failure, it has left the old packages in place.
        UNDER_WAY.unlink()
        raise
    UNDER_WAY.unlink()
    for covered in COVERS[lock]:
        stamp_path(covered).write_text(digest(covered))
    say(f"· ready in {time.monotonic() - start:.0f} s\n")


def main(arguments: list[str]) -> None:
    """Install `embedded` or `dev`.

    `--this-python`: the user has named the interpreter, so an environment of another one is replaced.
    """
    this_python = "--this-python" in arguments
    locks = [word for word in arguments if word != "--this-python"]
    if len(locks) != 1 or locks[0] not in COVERS:
        fail(f"usage: bootstrap.py [--this-python] {'|'.join(COVERS)}")
    lock = locks[0]
    if is_current(lock, this_python):
        return
    # Two calls at the same time (`make -j2 lint types`) take turns; the second finds everything done.
    turn = os.open(ROOT / "requirements", os.O_RDONLY)
    fcntl.flock(turn, fcntl.LOCK_EX)
    if not is_current(lock, this_python):
        set_up(lock, this_python)
    os.close(turn)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the same command begins again.")
