"""What is bound to the process that made it is refused by name, or arrives in a form that works."""

from __future__ import annotations

import io
import multiprocessing
import multiprocessing.connection
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asyncpar import PicklingError, pmap
from tests.functions import identity
from tests.loops import on_one_loop

pytestmark = [pytest.mark.anyio, on_one_loop]


@pytest.fixture
def pipe() -> Iterator[Any]:
    ends = multiprocessing.Pipe()
    yield ends[0]
    for end in ends:
        end.close()


async def refusal_of(item: Any, fn: Any = identity) -> PicklingError:
    with pytest.raises(PicklingError) as caught:
        await pmap(fn, [item], executor="process")
    return caught.value


async def test_an_end_of_a_pipe_is_refused_in_an_argument(pipe: Any) -> None:
    error = await refusal_of(SimpleNamespace(pipe=pipe))
    assert (error.path, error.type_name) == ("arguments[0].pipe", "multiprocessing.connection.Connection")
    assert "Manager().Queue()" in str(error)
    assert "let the call return its data" in str(error)


async def test_an_end_of_a_pipe_is_refused_in_the_function(pipe: Any) -> None:
    error = await refusal_of(1, lambda x: pipe.send(x))
    assert error.path == "function.__closure__['pipe']"


def open_pipe(_: object) -> Any:
    import multiprocessing

    return {"ends": multiprocessing.Pipe()}


async def test_an_end_of_a_pipe_is_refused_in_a_result() -> None:
    error = await refusal_of(1, open_pipe)
    assert error.path == "result['ends'][0]"


class Named(multiprocessing.connection.Connection):
    pass


async def test_an_end_of_a_pipe_is_refused_whatever_its_class() -> None:
    ends = multiprocessing.Pipe()
    with ends[1], Named(ends[0].fileno()) as named:
        error = await refusal_of([named])
        ends[0]._handle = None  # type: ignore[attr-defined]  # `named` closes it
    assert error.path == "arguments[0][0]"


async def test_a_text_file_that_is_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("content")
    with (tmp_path / "text").open("r+") as file:
        error = await refusal_of((1, file))
    assert error.path == "arguments[0][1]"
    assert "send the name of the file" in str(error)


async def test_a_text_file_that_is_read_arrives_with_its_content(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("content")
    with (tmp_path / "text").open() as file:
        assert await pmap(lambda file: file.read(), [file], executor="process") == ["content"]


@pytest.mark.parametrize("mode", ["w+", "w+b"])
async def test_a_named_temporary_file_is_refused_and_stays(mode: str) -> None:
    with tempfile.NamedTemporaryFile(mode) as file:
        error = await refusal_of({"file": file})
        assert Path(file.name).exists()
    assert error.path.startswith("arguments[0]['file']")
    assert "send its name" in str(error)


async def test_standard_output_and_files_in_memory_are_sent_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(file: Any) -> Any:
        file.write("!")
        return file.getvalue()

    assert await pmap(write, [io.StringIO("..")], executor="process") == ["!."]
    with (tmp_path / "output").open("w+") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert await pmap(lambda stream: stream.name, [output], executor="process") == ["<stdout>"]
        monkeypatch.undo()
