"""What lets a copy travel without its past, broken on purpose; see bugs.py.

A wrong belief of what another peer has seen is no bug: it happens in the explorer all the time.
"""

from typing import Any

from bugs import FOCUS, bug
from copies import Forgetful
from peers import PeerProcess
from scenario import AGENT

from peerloom.protocol.histories import Histories, History
from peerloom.protocol.messages import Copy, Deliver, Delivered, Item
from peerloom.protocol.outbox import Outbox
from peerloom.protocol.participant import Participant
from peerloom.protocol.peer import Peer
from peerloom.protocol.view import PEER
from peerloom.task import Header, Task, TaskId

FOCUS.update(
    {
        "base-known-by-its-length": [(("suspect", "kill", "deadline", "census"), (AGENT,), PEER)],
    }
)


@bug(Outbox, "answered")
def missing_taken_for_granted(original: Any, outbox: Outbox, destination: str, answer: Delivered) -> None:
    """A sender does not look at what the receiver has left to it."""
    original(outbox, destination, Delivered(answer.view, answer.seq, answer.accepted))


@bug(Outbox, "answered")
def wrong_ones_sent_again(original: Any, outbox: Outbox, destination: str, answer: Delivered) -> None:
    """A sender counts what is missing from the end."""
    under_way = outbox._in_flight.get(destination)
    last = len(under_way[1]) - 1 if under_way is not None and under_way[0] == answer.seq else 0
    places = [last - place for place in answer.missing] if last else answer.missing
    original(outbox, destination, Delivered(answer.view, answer.seq, answer.accepted, places))


@bug(Outbox, "answered")
def batch_sent_again_for_one_missing(
    original: Any, outbox: Outbox, destination: str, answer: Delivered
) -> None:
    """A sender takes a batch of which something is missing for refused."""
    accepted = answer.accepted and not answer.missing
    original(outbox, destination, Delivered(answer.view, answer.seq, accepted))


@bug(Forgetful, "pack")
def never_whole(original: Any, histories: Histories, destination: str, copy: Copy, full: bool) -> Item:
    """What the receiver lacks is left out again, for ever."""
    item = original(histories, destination, copy, False)
    if full and isinstance(copy, Task) and copy.raw_turns:
        history = histories._entries.get(copy.header.id)
        if history is not None:
            history.seen[destination] = len(copy.raw_turns)
            return original(histories, destination, copy, False)
    return item


@bug(Participant, "_refusal")
def asked_again_nothing_is_missing(original: Any, member: Participant, message: Deliver) -> Delivered | None:
    """A receiver that is asked again about a delivery forgets what it has not taken of it."""
    answer = original(member, message)
    return answer and Delivered(answer.view, answer.seq, answer.accepted)


@bug(Participant, "_refusal")
def old_places_told_again(original: Any, member: Participant, message: Deliver) -> Delivered | None:
    """A receiver says of a delivery what was missing in an earlier one."""
    before = member._missing.get(message.sender)
    answer = original(member, message)
    if answer is None and before:
        member._missing[message.sender] = [0]
    return answer


@bug(History, "digest")
def base_known_by_its_length(original: Any, history: History, turns: int) -> bytes:
    """A receiver goes on from any history that is long enough."""
    return b"%d" % turns


@bug(Peer, "_route")
def gone_maker_waited_for(original: Any, peer: Peer, target: str, id: TaskId) -> str | None:
    """A task that has ended waits for the peer that is to make its row, though that is gone for good."""
    return Participant._route(peer, target, id)


@bug(PeerProcess, "_make_row")
def made_row_kept(original: Any, peer: PeerProcess, header: Header, turns: Any) -> None:
    """Of a task that has ended a peer makes the row and goes on holding it."""
    original(peer, header, turns)
    peer.core._acting[header.id] = header
