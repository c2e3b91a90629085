import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.without_symbols import cut

COMPILED = ("yaml._yaml", "pydantic_core._pydantic_core", "cryptography.hazmat.bindings._rust", "aiohttp._http_parser")


@pytest.fixture(params=COMPILED)
def compiled(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a compiled module, made with Cython or Rust."""
    found = importlib.util.find_spec(request.param)
    assert found
    assert found.origin
    return Path(shutil.copy(found.origin, tmp_path))


def test_module_still_loads_and_is_no_longer_than_before(compiled: Path) -> None:
    before = compiled.stat().st_size
    saved = cut(compiled)
    assert saved > 0
    assert compiled.stat().st_size == before - saved
    load = f"import ctypes; ctypes.PyDLL({str(compiled)!r}).PyInit_{compiled.name.partition('.')[0]}"
    subprocess.run([sys.executable, "-c", load], check=True)


def test_once_is_enough(compiled: Path) -> None:
    cut(compiled)
    assert cut(compiled) == 0


@pytest.mark.parametrize("content", [b"", b"a script", b"\x7fELF\x01\x01 of 32 bits"])
def test_other_files_stay_as_they_are(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other.so").write_bytes(content)
    assert cut(tmp_path / "other.so") == 0
    assert (tmp_path / "other.so").read_bytes() == content
