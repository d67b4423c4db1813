"""The offline analyzer in a bare Python: no package installed, nothing but the repository and the standard library."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[1]


def test_nothing_but_the_standard_library_is_imported() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from local_analyzer import LocalAnalyzer\n"
        "print(LocalAnalyzer.load(topic_patterns={}).analyze('my parcel never came').sentiment)"
    )

    # -I -S: no site-packages, so any third-party import would fail.
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)

    assert (done.stdout.strip(), done.stderr) == ("negative", "")
