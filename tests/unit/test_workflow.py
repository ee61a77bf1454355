import pickle
from collections.abc import Callable

import pytest

from peerloom.errors import WorkflowError
from peerloom.task import End, Header, Task, TaskId, Turn, new_task
from peerloom.workflow import END, Graph, Loop, Sequence, When, Workflow, check_agents


def walk(
    workflow: Workflow, values: Callable[[str, int], object] = lambda role, hop: hop
) -> tuple[list[str], End]:
    """The roles that act, if each returns `values(role, hop)`, and how the task ends."""
    task = new_task(Header(TaskId(0, 0, 0)), {"n": 1}, seed=1)
    roles: list[str] = []
    while not isinstance(where := workflow.next(task), End):
        roles.append(where)
        assert len(roles) < 1000, "it never ends"
        task = task.with_next(where).with_turns(Turn(where, value=values(where, task.header.hop)))
    return roles, where


def never(task: Task) -> bool:
    return False


def last_value(task: Task) -> bool:
    return task.last is not None and task.last.value is True


def test_a_sequence_runs_once_in_order():
    workflow = Sequence("ask", "answer", "ask")
    assert workflow.roles == ("ask", "answer")
    assert walk(workflow) == (["ask", "answer", "ask"], End(result=2))


def test_the_result_is_made_from_the_finished_task():
    workflow = Sequence("a", "b", result=lambda task: {"turns": len(task.turns)})
    assert walk(workflow)[1] == End("completed", "", {"turns": 2})


def test_without_a_value_the_result_is_what_was_said_last():
    task = new_task(Header(TaskId(0, 0, 0)), {}, seed=1)
    spoken = task.with_turns(Turn("a", {"role": "assistant", "content": "hello"}))
    assert Sequence("a").next(spoken) == End(result="hello")
    assert Sequence("a").next(
        task.with_turns(Turn("a", {"role": "assistant", "content": "no"}, value=0))
    ) == End(result=0)
    assert Sequence("a").next(task.with_turns(Turn("a"))) == End()


def test_an_agent_that_adds_several_turns_makes_one_step():
    task = new_task(Header(TaskId(0, 0, 0)), {}, seed=1).with_turns(Turn("a"), Turn("a"))
    assert Sequence("a", "b").next(task) == "b"


def test_a_loop_goes_round_until_its_rounds_are_used_up():
    assert walk(Loop("a", "b", until=never, max_rounds=2)) == (["a", "b", "a", "b"], End(result=3))


@pytest.mark.parametrize(("hop", "roles"), [(0, ["a"]), (1, ["a", "b"]), (2, ["a", "b", "a"])])
def test_a_loop_ends_after_any_step_that_fulfils_it(hop: int, roles: list[str]):
    workflow = Loop("a", "b", until=last_value, max_rounds=5)
    assert walk(workflow, lambda role, at: at == hop)[0] == roles


def test_a_loop_asks_nothing_before_the_first_step():
    assert walk(Loop("a", until=lambda task: True, max_rounds=1))[0] == ["a"]


def test_a_role_may_act_more_than_once_a_round():
    workflow = Loop("a", "check", "b", "check", until=never, max_rounds=1)
    assert workflow.roles == ("a", "check", "b")
    assert walk(workflow)[0] == ["a", "check", "b", "check"]


def review(max_hops: int = 100) -> Graph:
    """A writer, sent back by a critic until the text is good; a judge may drop it."""
    edges = {
        "writer": "critic",
        "critic": [When(lambda task: task.value("critic") == "bad", "writer"), "judge"],
        "judge": END,
    }
    return Graph("writer", edges, max_hops=max_hops)


def test_a_graph_follows_the_first_edge_that_holds():
    workflow = review()
    assert workflow.roles == ("writer", "critic", "judge")
    good = walk(workflow, lambda role, hop: "good")
    bad_once = walk(workflow, lambda role, hop: "bad" if hop < 3 else "good")
    assert good == (["writer", "critic", "judge"], End(result="good"))
    assert bad_once[0] == ["writer", "critic", "writer", "critic", "judge"]


def test_a_graph_that_runs_on_is_truncated():
    roles, end = walk(review(max_hops=5), lambda role, hop: "bad")
    assert len(roles) == 5
    assert end == End("truncated", "max_hops")


def test_a_graph_that_ends_on_its_last_hop_is_complete():
    assert walk(review(max_hops=3), lambda role, hop: "good")[1] == End(result="good")


def test_a_graph_may_end_on_a_condition():
    workflow = Graph("a", {"a": [When(last_value, END), "b"], "b": "a"})
    assert walk(workflow, lambda role, hop: hop == 2) == (["a", "b", "a"], End(result=True))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Sequence, "Sequence has no roles: name at least one"),
        (lambda: Loop(until=never, max_rounds=1), "Loop has no roles"),
        (lambda: Loop("a", until=never, max_rounds=0), "max_rounds=0, so it would never begin"),
        (lambda: Graph("a", {"a": END}, max_hops=0), "max_hops=0, so it would never begin"),
        (lambda: Graph("b", {"a": END}), "start names 'b', which has no edges. There are: a"),
        (lambda: Graph("writr", {"writer": END}), "start names 'writr', .* Did you mean 'writer'"),
        (lambda: Graph(END, {"a": END}), "start names '<end>'"),
        (lambda: Graph("a", {"a": "bb", "b": END}), r"edges\['a'\] names 'bb', .* Did you mean 'b'"),
        (lambda: Graph("a", {"a": END, "b": END}), "role 'b' cannot be reached from 'a'"),
        (lambda: Graph("a", {"a": "b", "b": "a"}), "no way out from role 'a'"),
        (lambda: Graph("a", {"a": [When(never, END)]}), r"edges\['a'\] must end in one plain target"),
        (lambda: Graph("a", {"a": []}), r"edges\['a'\] must end in one plain target"),
        (lambda: Graph("a", {"a": ["b", END], "b": END}), "must end in one plain target"),
    ],
)
def test_what_cannot_work_is_refused_where_it_was_built(build: Callable[[], Workflow], message: str):
    with pytest.raises(WorkflowError, match=rf"^test_workflow\.py:\d+: .*{message}"):
        build()


def test_a_trap_inside_a_graph_is_found():
    with pytest.raises(WorkflowError, match="no way out from role 'b'"):
        Graph("a", {"a": [When(last_value, "b"), END], "b": "c", "c": "b"})


def test_every_role_needs_an_agent_and_every_agent_a_role():
    workflow = Sequence("teacher", "student")
    check_agents(workflow, ["student", "teacher"])
    with pytest.raises(WorkflowError, match=r"role 'student', but no agent fills it\. Did you mean 'studnt'"):
        check_agents(workflow, ["teacher", "studnt"])
    with pytest.raises(WorkflowError, match=r"agent 'judge' has no role in the workflow"):
        check_agents(workflow, ["teacher", "student", "judge"])


def test_an_own_workflow_is_a_class_with_roles_and_next():
    class Coin(Workflow):
        roles = ("heads", "tails")

        def next(self, task: Task) -> str | End:
            return self.done(task) if task.last else self.roles[task.seed % 2]

    assert walk(Coin()) == (["tails"], End(result=0))


def test_a_workflow_travels_to_other_processes():
    workflow = pickle.loads(pickle.dumps(Loop("a", "b", until=last_value, max_rounds=2)))
    assert walk(workflow)[0] == ["a", "b", "a", "b"]
