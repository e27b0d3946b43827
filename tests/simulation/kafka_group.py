"""The coordinator of a consumer group: who is a member, and who has which partitions."""

from typing import Protocol

from tests.simulation.log_twin import Broker

SESSION_SECONDS = 6.0
HEARTBEAT_SECONDS = 1.0


class Member(Protocol):
    name: str

    def beats(self) -> bool:
        """Whether its heartbeats arrive now."""


class Group:
    """The coordinator. A rebalance ends when every member has come back, or the late are thrown out."""

    def __init__(self, broker: Broker, partitions: int) -> None:
        self._broker, self._partitions = broker, partitions
        self.generation = 0
        self._members: dict[Member, float] = {}  # -> when its last heartbeat came
        self._joined: set[Member] = set()
        self._since = 0.0
        self.assignments: dict[Member, list[int]] = {}
        broker.scheduler.after(HEARTBEAT_SECONDS, self._tick)

    def join(self, member: Member) -> None:
        if member not in self._members or member in self.assignments:
            self._rebalance()
        self._members[member] = self._broker.scheduler.now
        self._joined.add(member)
        self._complete()

    def leave(self, member: Member) -> None:
        if self._members.pop(member, None) is not None:
            self._joined.discard(member)
            self._rebalance()

    def belongs(self, member: Member, generation: int) -> bool:
        return generation == self.generation and member in self.assignments

    def _rebalance(self) -> None:
        if self.assignments or not self._joined:
            self._since = self._broker.scheduler.now
        self.generation += 1
        self.assignments = {}
        self._joined &= set(self._members)

    def _complete(self) -> None:
        if self.assignments or not self._members or set(self._members) - self._joined:
            return
        members = sorted(self._joined, key=lambda member: member.name)
        shares: list[list[int]] = [[] for _ in members]
        for partition in range(self._partitions):  # as the range assignor does
            shares[partition * len(members) // self._partitions].append(partition)
        self.generation += 1
        self.assignments = dict(zip(members, shares, strict=True))
        self._joined = set()
        self._broker.appended()

    def _tick(self) -> None:
        now = self._broker.scheduler.now
        reached = self._broker.up and not self._broker.frozen
        for member, seen in list(self._members.items()):
            if reached and member.beats():
                self._members[member] = now
            elif reached and now - seen > SESSION_SECONDS:
                self.leave(member)
        if not self.assignments and self._joined and now - self._since > SESSION_SECONDS:
            for late in sorted(set(self._members) - self._joined, key=lambda member: member.name):
                del self._members[late]
        self._complete()
        self._broker.scheduler.after(HEARTBEAT_SECONDS, self._tick)
