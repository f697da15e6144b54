# Copyright 2026 The hf-xformer authors
# SPDX-License-Identifier: Apache-2.0
"""Bad rows of data: counted and refused together, or left out and counted by reason."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import DataError, say_once


POLICIES = ("error", "skip")
EXAMPLES = 10  # bad rows that are named
# Characters that a shorter text counts as when the lengths of a pair are compared.
SHORTEST = 10


class Fault(NamedTuple):
    """
    Reason for which a record is no row.

    Args:
        reason: Without anything of the row itself, so that rows can be counted by it.
        detail: What the row holds.
        remedy: What to do if all rows are bad for this reason.
    """

    reason: str
    detail: str = ""
    remedy: str = ""


class Counts(NamedTuple):
    """The numbers of rows that were read, of those that could not be, and of bad ones by their reason."""

    rows: int
    unreadable: int
    by_reason: Counter[str]


class Unwanted(NamedTuple):
    """A column of targets, and the option for texts that have none."""

    column: str
    option: str


class BadRows:
    """
    The bad rows that readers meet; `line_or_refuse` says what becomes of them.

    A copy, which `datasets` makes to hash or to send one, has the same policy and has counted nothing.

    Args:
        policy: "error" refuses the data after all of it has been read; "skip" leaves bad rows out.
        max_length_ratio: How many times longer than the other one side of a pair may be, in characters; a text of
            fewer than `SHORTEST` counts as `SHORTEST`. None for any.
        unwanted: A column that makes a row bad; None if none does.
    """

    def __init__(
        self, policy: str = "error", max_length_ratio: float | None = None, unwanted: "Unwanted | None" = None
    ):
        if policy not in POLICIES:
            raise ValueError(f"policy {policy!r}: there are {', '.join(POLICIES)}")
        self.policy, self.max_length_ratio, self.unwanted = self.rules = policy, max_length_ratio, unwanted
        self.rows = 0  # that were read, good or bad
        self.unreadable = 0  # of them, such as empty lines: they say nothing of the columns
        self.counts: Counter[str] = Counter()  # by reason
        self.examples: list[str] = []  # the first, each with its place
        self.first = ""  # place and reason of the first, without anything that stands in it
        self.remedies: dict[str, str] = {}  # by reason
        self.said: set[str] = set()  # lines that a pass over a stream has said

    def __reduce__(self) -> tuple:
        return type(self), self.rules

    def fresh(self) -> "BadRows":
        """Returns one of the same policy that has counted nothing."""
        return BadRows(*self.rules)

    def of_stream(self, shards: int = 1) -> "BadRowsOfStream":
        """Returns one of the same policy for rows, in so many shards, that are read while they are used."""
        found = BadRowsOfStream(*self.rules)
        found.said, found.shards = self.said, shards
        return found

    @property
    def total(self) -> int:
        """The number of bad rows."""
        return self.counts.total()

    def add(self, place: str, reason: str, detail: str = "", remedy: str = "") -> None:
        """Counts a bad row, which stands at a place such as "train.jsonl:17"."""
        self.counts[reason] += 1
        self.first = self.first or f"{place}: {reason}"
        self.remedies[reason] = remedy
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{place}: {reason}{': ' * bool(detail)}{detail}")

    def by_reason(self) -> str:
        """Returns the reasons with their numbers, the most frequent first."""
        return listed(dict(self.counts.most_common()))

    def line_or_refuse(self) -> str:
        """
        Returns a line that says how many rows were left out and why; nothing if all are good.

        Raises:
            DataError: The policy is "error" and there are bad rows; the message counts all and names the first.
        """
        if not self.total:
            return ""
        if self.policy == "error":
            raise DataError(self.refusal())
        line = f"left out {self.share()} (--on_bad_row skip): {self.by_reason()}; the first: {self.examples[0]}"
        return "; ".join(filter(None, (line, self.remedy())))

    def remedy(self, since: Counts | None = None) -> str:
        """
        Returns what helps if all rows that could be read are bad for one reason, such as the name of a column.

        Args:
            since: The counts before the first of these rows.
        """
        before = since or Counts(0, 0, Counter())
        counts = self.counts - before.by_reason
        reasons = [reason for reason in counts if self.remedies.get(reason)]
        is_one = len({self.remedies[reason] for reason in reasons}) == 1
        readable = (self.rows - before.rows) - (self.unreadable - before.unreadable)
        return self.remedies[reasons[0]] if is_one and sum(counts[each] for each in reasons) == readable else ""

    def until_now(self) -> Counts:
        """Returns the counts of the rows that were read."""
        return Counts(self.rows, self.unreadable, self.counts.copy())

    def check_file(self, path: str, since: Counts) -> None:
        """
        Refuses a file none of whose rows is left, for they lack a column: it would be left out whole.

        Args:
            since: The counts before the file was read.

        Raises:
            DataError: It is one of those.
        """
        if self.policy == "skip" and (remedy := self.remedy(since)):
            reasons = listed(dict((self.counts - since.by_reason).most_common()))
            raise DataError(f"{path}: none of its rows is left: {reasons}; {remedy}")

    def tell(self, say: Callable) -> None:
        """Says what was left out, if anything was."""
        if line := self.line_or_refuse():
            say(line)

    def for_results(self) -> dict[str, Any]:
        """Returns the numbers of rows that were left out, for a file of results; nothing if there are none."""
        return {"bad_rows_left_out": dict(self.counts.most_common())} if self.total else {}

    def summary(self) -> dict[str, Any]:
        """Returns the numbers and where the first bad row stands; nothing that stands in it, which may be private."""
        record = self.record()
        return {name: record[name] for name in ("rows", "reasons", "first")}

    def share(self) -> str:
        """Returns the number of bad rows among all."""
        return f"{self.total:,} bad {'row' if self.total == 1 else 'rows'} of {self.rows:,}"

    def refusal(self, skip: str = "--on_bad_row skip") -> str:
        """
        Returns the message of the error.

        Args:
            skip: The option that leaves bad rows out; nothing if none does.
        """
        if remedy := self.remedy():  # one example says it all
            return f"{self.share()}: {self.by_reason()}; the first: {self.examples[0]}; {remedy}"
        if self.total == 1:
            return self.examples[0] + (f"; {skip} leaves such a row out" if skip else "")
        first = "all" if self.total <= EXAMPLES else f"the first {EXAMPLES}"
        out = f"; {skip} leaves them out" if skip else ""
        return f"{self.share()}: {self.by_reason()}{out}; {first}: {'; '.join(self.examples)}"

    def record(self) -> dict[str, Any]:
        """Returns the counts as JSON holds them; `recall` takes them up again."""
        reasons = dict(self.counts.most_common())
        return {"rows": self.rows, "reasons": reasons, "first": self.first, "examples": self.examples}

    def recall(self, record: dict[str, Any]) -> None:
        """Adds what another one has counted."""
        self.rows += record["rows"]
        self.counts.update(record["reasons"])
        self.first = self.first or record["first"]
        self.examples = [*self.examples, *record["examples"]][:EXAMPLES]


class BadRowsOfStream(BadRows):
    """The bad rows of a stream: each is refused at once, or they are counted in lines while reading goes on."""

    shards = 1  # of the rows, which readers divide among them

    def refusal(self, skip: str = "--on_bad_row skip") -> str:
        out = f"a stream stops at its first bad row: {skip} leaves such rows out"
        return "; ".join(filter(None, (self.examples[0], self.remedy(), out)))

    def add(self, place: str, reason: str, detail: str = "", remedy: str = "") -> None:
        super().add(place, reason, detail, remedy)
        if self.policy == "error":
            raise DataError(self.refusal())
        if str(self.total).strip("0") == "1":  # 1, 10, 100, ...
            self.say_first_time(f"so far {self.line_or_refuse()}")

    def say_first_time(self, line: str) -> None:
        """Says a line as `say_once` does, unless an earlier pass over the stream has said the same."""
        if line not in self.said:
            self.said.add(line)
            say_once(line, self.shards)


def listed(counts: Mapping[str, int]) -> str:
    """Returns names with their numbers, in their order."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())
