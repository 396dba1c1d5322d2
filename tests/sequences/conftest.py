"""An export that several files read."""

from pathlib import Path

import pytest

from vltok.sequences.source import CodeSequences
from vltok.sequences.stored import stored_sequences

from .code_exports import export_codes, random_codes


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("codes")
    export_codes(path, random_codes(97), shard_size=10)
    return path


@pytest.fixture(scope="session")
def sequences(folder: Path) -> CodeSequences:
    return stored_sequences(folder)
