from __future__ import annotations

from sdpack.errors import InfeasibleError
from sdpack.progress import Say
from sdpack.workers.jobs import JobResult, done


def test_what_a_task_raises_is_its_result() -> None:
    lines: list[str] = []

    def handle(task: int, say: Say) -> int:
        say(f"doing {task}")
        if task > 1:
            raise InfeasibleError("nothing fits", 7)
        return task

    assert done(handle, 5, 1, lines.append) == JobResult(5, 1)
    assert done(handle, 6, 2, lines.append) == JobResult(6, error="InfeasibleError: nothing fits")
    assert lines == ["doing 1", "doing 2"]
