"""One job at a time, in order; who waits is told."""

import threading
from collections import defaultdict

from g2vlm.viewer.work import Job, WorkQueue


def test_jobs_run_in_order_and_places_are_told():
    queue, order, places = WorkQueue(), [], defaultdict(list)
    release, done = threading.Event(), threading.Event()

    def job(name: str, last: bool = False) -> Job:
        def run(own: Job) -> None:
            release.wait(5)
            order.append(name)
            if last:
                done.set()

        return Job(run, places[name].append)

    jobs = [job("a"), job("b"), job("c", last=True)]
    for each in jobs:
        queue.add(each)
    release.set()
    assert done.wait(5)
    assert order == ["a", "b", "c"]
    assert places["c"][0] in (2, 3)
    assert sorted(places["c"], reverse=True) == places["c"]
    assert places["c"][-1] == 0
    queue.close()


def test_cancelled_jobs_leave_the_queue_and_running_ones_are_told():
    queue = WorkQueue()
    started, stopped, ran = threading.Event(), threading.Event(), []

    def first(job: Job) -> None:
        started.set()
        while not job.is_cancelled:
            pass
        stopped.set()

    running = Job(first, lambda place: None)
    waiting = Job(lambda job: ran.append(1), lambda place: None)
    queue.add(running)
    assert started.wait(5)
    queue.add(waiting)
    assert queue.num_jobs == 2
    queue.cancel(waiting)
    assert queue.num_jobs == 1
    queue.close()
    assert stopped.wait(5)
    assert ran == []


def test_a_job_that_raises_does_not_end_the_queue(monkeypatch):
    raised, done = [], threading.Event()
    monkeypatch.setattr("g2vlm.viewer.work.report", raised.append)
    queue = WorkQueue()

    def fail(job: Job) -> None:
        raise ValueError("broken")

    queue.add(Job(fail, lambda place: None))
    queue.add(Job(lambda job: done.set(), lambda place: None))
    assert done.wait(5)
    assert [str(error) for error in raised] == ["broken"]
    queue.close()
