"""Rows that another peer makes, broken on purpose; see bugs.py."""

from typing import Any

from bugs import bug
from peers import PeerProcess

from peerloom.protocol.participant import Participant
from peerloom.protocol.peer import Peer
from peerloom.task import Header, TaskId


@bug(Peer, "_route")
def gone_maker_waited_for(original: Any, peer: Peer, target: str, id: TaskId) -> str | None:
    """A task that has ended waits for the peer that is to make its row, though that is gone for good."""
    return Participant._route(peer, target, id)


@bug(PeerProcess, "_make_row")
def made_row_kept(original: Any, peer: PeerProcess, header: Header, turns: Any) -> None:
    """Of a task that has ended a peer makes the row and goes on holding it."""
    original(peer, header, turns)
    peer.core._acting[header.id] = header
