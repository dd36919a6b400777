"""The client under requests, answers, deaths and deadlines in any order: no outcome is lost, doubled or mixed up."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from batching.client import Answer, Outcome, Ticket
from batching.errors import NoWorker, QueueFull
from tests.batching.desk import FAR, TARGET, Desk, FakeWorker
from tests.batching.direct import column


class AnyOrder(RuleBasedStateMachine):
    """Requests, answers, deaths and deadlines in any order: each request is told its outcomes exactly once."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(max_rows=20)
        self.told: dict[int, list[Outcome]] = {}
        self.asked: dict[int, list[float]] = {}
        self.tickets: dict[int, Ticket] = {}
        self.now = 0.0

    def alive(self) -> list[FakeWorker]:
        return [worker for worker in self.desk.workers.values() if worker.connection.fileno() >= 0]

    @precondition(lambda self: len(self.alive()) < 4)
    @rule()
    def start_worker(self) -> None:
        self.desk.publish(len(self.desk.workers) + 1)

    @rule(values=st.lists(st.integers(0, 1000).map(float), max_size=5), patience=st.integers(1, 5))
    def submit(self, values: list[float], patience: int) -> None:
        number = len(self.asked)

        def done(outcomes: list[Outcome]) -> None:
            assert number not in self.told, "told twice"
            self.told[number] = outcomes

        items = [(1, [column(value)]) for value in values]
        try:
            ticket = self.desk.client.submit(TARGET, items, self.now + patience, done)
        except (NoWorker, QueueFull):
            return
        self.asked[number] = values
        self.tickets[number] = ticket

    @rule(data=st.data(), fails=st.booleans())
    def answer(self, data: st.DataObject, fails: bool) -> None:
        pending = [(worker, id) for worker in self.alive() for id in worker.items]
        if not pending:
            return
        worker, id = data.draw(st.sampled_from(pending))
        (worker.fail if fails else worker.answer)(id)
        del worker.items[id]

    @precondition(lambda self: self.alive())
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.alive())).die()

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        self.desk.client.withdraw(self.tickets[data.draw(st.sampled_from(sorted(self.tickets)))])

    @rule()
    def turn(self) -> None:
        self.desk.turn()

    @rule()
    def time_passes(self) -> None:
        self.now += 1
        self.desk.client.expire(self.now)

    @invariant()
    def what_is_told_is_right(self) -> None:
        for number, outcomes in self.told.items():
            assert len(outcomes) == len(self.asked.get(number, []))
            for value, outcome in zip(self.asked.get(number, []), outcomes, strict=True):
                assert not isinstance(outcome, Answer) or outcome.outputs[0].item() == value * 2

    def teardown(self) -> None:
        self.desk.client.expire(FAR)
        assert self.desk.client.in_flight == 0
        assert self.told.keys() == self.asked.keys()
        assert all(link.rows == 0 for link in self.desk.client._links.values())
        self.desk.end()


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
