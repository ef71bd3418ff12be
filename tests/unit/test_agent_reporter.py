"""The condition that sums up what a node cannot serve."""

import pytest

from hybridnet.agent.reporter import ready_condition
from hybridnet.model.meta import Condition
from hybridnet.plan.view import Problem

LONG_AGO = "2026-01-01T00:00:00Z"
PROBLEMS = [
    Problem("Subnet", "a", "DeviceNotFound", "subnet a: no bridge"),
    Problem("Subnet", "b", "Invalid", "subnet b: bad"),
]


def before(status: str, kind: str = "Ready") -> Condition:
    return Condition(type=kind, status=status, reason="", message="", last_transition_time=LONG_AGO)


def test_a_node_that_serves_everything_is_ready() -> None:
    condition = ready_condition([], [])
    assert (condition.type, condition.status, condition.reason) == ("Ready", "True", "Serving")


@pytest.mark.spec("T58")
def test_every_problem_is_told_and_the_first_gives_the_reason() -> None:
    condition = ready_condition(PROBLEMS, [])
    assert (condition.status, condition.reason) == ("False", "DeviceNotFound")
    assert condition.message == "subnet a: no bridge; subnet b: bad"


@pytest.mark.parametrize(
    ("old", "problems", "kept"),
    [
        ([before("True")], [], True),
        ([before("True")], PROBLEMS, False),
        ([before("False")], PROBLEMS, True),
        ([before("False")], [], False),
        ([before("True", "Other")], [], False),
        ([], [], False),
    ],
)
def test_the_transition_time_changes_with_the_status_alone(
    old: list[Condition], problems: list[Problem], kept: bool
) -> None:
    assert (ready_condition(problems, old).last_transition_time == LONG_AGO) is kept


def test_a_message_fits_whatever_the_number_of_problems() -> None:
    many = [Problem("Subnet", str(n), "Invalid", f"subnet {n} is not usable") for n in range(1000)]
    assert len(ready_condition(many, []).message) == 4096
