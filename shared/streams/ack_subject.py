"""The subject that takes the acknowledgement of a message: its tokens say which message of a stream it is. Pure."""

from __future__ import annotations


def consumer_sequence(reply: str) -> int | None:
    """The number that a consumer gave a message, out of the message's reply subject.

    ``$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>``, or with the domain and a
    hash of the account before the stream and a token at the end (NATS ADR-15).
    """
    tokens = _ack_tokens(reply)
    return int(tokens[-3]) if tokens else None


def stream_sequence(reply: str) -> int:
    """The number of the message in its stream, likewise; 0 where it is none of a stream."""
    tokens = _ack_tokens(reply)
    return int(tokens[-4]) if tokens else 0


def _ack_tokens(reply: str) -> list[str]:
    """The tokens of the subject from ``$JS`` to ``<pending>``; none of another kind of reply."""
    tokens = reply.split(".")
    if tokens[:2] != ["$JS", "ACK"] or len(tokens) not in (9, 11, 12):
        return []
    return tokens[:11] if len(tokens) == 12 else tokens
