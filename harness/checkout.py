"""Modules of published code, imported from a checkout that an environment variable names."""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType


def checkout(variable: str, module: str, url: str) -> ModuleType:
    """Import `module` from the folder that the environment variable `variable` names.

    The folder is on `sys.path` while importing, and not afterwards.

    Args:
        variable: Its name, e.g. `PARTIALCONV_PATH`.
        module: Dotted, as seen from that folder.
        url: Where the code is published, for the error.

    Raises:
        ImportError: the variable is not set, or names a folder from which `module` does not come.
    """
    expected = f"{variable} must name the folder of a checkout of {url}"
    named = os.environ.get(variable)
    if not named:
        raise ImportError(f"{expected}: it is not set")
    folder = str(Path(named).resolve())
    sys.path.insert(0, folder)
    try:
        found = importlib.import_module(module)
    except Exception as error:
        reason = f"importing {module} from {folder} raised {type(error).__name__}: {error}"
        raise ImportError(f"{expected}: {reason}") from error
    finally:
        sys.path.remove(folder)
    origin = Path(found.__file__ or ".").resolve()
    if not origin.is_relative_to(folder):
        raise ImportError(f"{expected}: {module} comes from {origin}, outside of {folder}")
    return found
