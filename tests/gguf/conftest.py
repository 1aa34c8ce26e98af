"""What the tests of headers share: one engine child whose parser is asked about many headers."""

import pytest

from planner.engine.child import EngineChild


@pytest.fixture(scope="session")
def ggml_says(tmp_path_factory):
    """A function: ggml's complaint about each of the given headers, ``None`` for one that it accepts."""
    pytest.importorskip("llama_cpp", reason="needs the engine")
    path = tmp_path_factory.mktemp("headers") / "headers"
    with EngineChild() as child:

        def say(*headers: bytes) -> list[str | None]:
            path.write_bytes(b"".join(headers))
            answer = child.ask("header.verdicts", {"path": str(path), "lengths": [len(each) for each in headers]})
            return answer["complaints"]

        yield say
