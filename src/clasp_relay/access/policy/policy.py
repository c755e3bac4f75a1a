"""An application policy: loads a document and answers the questions of the relay."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path as FilePath

from clasp_relay.access.policy.catch_up import CatchUps, KeysRead
from clasp_relay.access.policy.document import Document
from clasp_relay.access.policy.history_rules import HistoryRules, with_max_age
from clasp_relay.access.policy.language.json_keys import parse_json
from clasp_relay.access.policy.language.maps import repeated_key
from clasp_relay.access.policy.language.question import NO_SESSION_IDS, SessionIds
from clasp_relay.access.policy.parsing import parse_document
from clasp_relay.access.policy.scopes import ANONYMOUS, Scopes, ScopeTemplates
from clasp_relay.access.policy.visibility_rules import Visibility, VisibilityRule
from clasp_relay.access.policy.write_rules import Decision, WriteRequest, WriteRules
from clasp_relay.core.rights.memory import Memory
from clasp_relay.core.rights.port import CatchUp, State
from clasp_relay.errors import ErrorCode, RequestError, StartError
from clasp_relay.wire.messages import NULL, Value

PACKAGED = ("chat", "chat-compat")
"""The policies that come with the relay."""


class Policy:
    """One application's rules. Make it with :meth:`load`, :meth:`packaged` or :meth:`from_document`.

    A decision depends on its arguments only, except for ``session_ids`` and the failures that a rule counts.

    Args:
        document: the parsed document.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self._scopes = ScopeTemplates(document.scopes)
        self._anonymous_scopes = ScopeTemplates(() if document.anonymous is None else document.anonymous.scopes)
        self.session_ids: SessionIds = NO_SESSION_IDS
        """Tells which session ids were given to which subject; to be set before the first write is decided."""
        self.visibility = Visibility(document)
        self.write_rules = WriteRules(document, self.visibility)
        self.catch_ups: Callable[[str], tuple[CatchUp, ...]] = CatchUps(document.visibility).after
        """Returns what a change at an address may open for sessions that subscribed before it."""
        self.keys_read: Callable[[str], frozenset[bytes]] = KeysRead(document).at
        """Returns the keys that rules, stamps and redactions read in a map at an address."""

    @classmethod
    def from_document(cls, document: object, source: str = "policy") -> Policy:
        """Reads decoded JSON.

        Args:
            document: the JSON.
            source: the document's name in error messages.

        Raises:
            StartError: something in it is unknown, missing or wrong; it names source and key.
        """
        return cls(parse_document(document, source))

    @classmethod
    def load(cls, path: str) -> Policy:
        """Reads a file.

        Raises:
            StartError: it cannot be read; or as for ``from_document``.
        """
        try:
            text = FilePath(path).read_text("utf-8-sig")
        except OSError as error:
            raise StartError(f"{path}: the policy cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise StartError(f"{path}: the policy cannot be read: it is no UTF-8 ({error.reason})") from None
        return cls.from_document(parse_json(text, path), path)

    @classmethod
    def packaged(cls, name: str) -> Policy:
        """Reads a policy that comes with the relay, one of ``PACKAGED``."""
        file = resources.files("clasp_relay.access.policies") / f"{name}.json"
        return cls.from_document(parse_json(file.read_text("utf-8"), name), name)

    def scopes_for(self, user_id: str) -> tuple[str, ...]:
        """Returns the scopes of a user's token, or those of a session without a token, by its subject.

        Raises:
            ValueError: the id cannot stand in a scope.
        """
        return self._templates_for(user_id).texts(user_id)

    def granted(self, user_id: str) -> Scopes:
        """Returns the same as ``scopes_for``, parsed.

        Raises:
            ValueError: the id cannot stand in a scope.
        """
        return self._templates_for(user_id).of(user_id)

    def _templates_for(self, user_id: str) -> ScopeTemplates:
        return self._anonymous_scopes if user_id.startswith(ANONYMOUS) else self._scopes

    def check_write(
        self,
        subject: str,
        address: str,
        value: Value | None,
        ttl: int | None,
        is_publish: bool,
        state: State,
        now_us: int,
        *,
        is_admin: bool = False,
        is_account: bool = False,
        memory: Memory | None = None,
        fails_as: str = "",
    ) -> Decision:
        """Decides a SET or PUBLISH that the scopes allow.

        Args:
            subject: the writer.
            address: a valid address.
            value: what is written; None counts as null.
            ttl: as on the wire; None when the message has none.
            is_publish: whether it is a PUBLISH.
            state: the params before the write.
            now_us: Unix µs.
            is_admin: whether an admin scope of the writer holds the address: no rule refuses then.
            is_account: whether the writer's token is a registered user's.
            memory: where the answer may be remembered; it must be told of every change of ``state``.
            fails_as: the subject for which its failures are counted; empty for the writer.

        Returns:
            what is to be stored, and the remembered answer. A stamp, or hidden fields that were kept, may have been
            added to the value.

        Raises:
            RequestError: POLICY when a rule refuses, LIMIT after too many failures.
        """
        sent = NULL if value is None else value
        write = WriteRequest(subject, address, sent, ttl, is_publish, is_admin, fails_as, is_account, self.session_ids)
        return self.write_rules.decide(write, state, now_us, memory)

    def check_keys(self, address: str, value: Value) -> None:
        """Refuses a map that repeats a key which the policy reads, since two readers may take different values.

        Raises:
            RequestError: VALUE.
        """
        key = repeated_key(value, sorted(self.keys_read(address)))
        if key is not None:
            text = f"the key {key.decode()!r} is in the map more than once"
            raise RequestError(ErrorCode.VALUE, text, address)

    def visibility_rule(self, address: str, *, is_live: bool = False) -> VisibilityRule:
        """Returns the rule that decides who sees an address; ``fixed``, unless None, is the verdict for all readers.

        Args:
            address: where the value is.
            is_live: whether it is a SET or PUBLISH on its way to a subscriber; matters only where
                ``tells_live_apart``.
        """
        return self.visibility.rule(address, is_live=is_live)

    @property
    def tells_live_apart(self) -> bool:
        """Whether the rules for live messages differ from those for snapshots."""
        return self.visibility.tells_live_apart

    def history_rules(self, max_age_us: int | None = None) -> HistoryRules:
        """Returns the policy's history rules.

        Args:
            max_age_us: the age limit in µs in place of those of the rules; None for theirs.
        """
        entries = self.document.history
        entries = entries if max_age_us is None else with_max_age(entries, max_age_us)
        return HistoryRules(entries, self.write_rules.is_stamped)

    def ends_soon(self, address: str) -> bool:
        """Tells whether the policy's TTL for an address is so short that an ACK need not wait for the disk."""
        return self.write_rules.ends_soon(address)

    def stamp_of(self, address: str, value: Value) -> str | None:
        """Returns the subject that stays stamped when a stored value ends without a write: by expiry or eviction."""
        return self.write_rules.stamp_of(address, value)
