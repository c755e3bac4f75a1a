"""Lists and changes users and guests for administrators; each change is in the audit log.

To delete a person takes a while, and changes more than one file. So the account is deleted first, with a note of the
work that is left. The relay does that work at once, or after its next start, or when another process has deleted the
account.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, Protocol

from twisted.internet.defer import Deferred, DeferredLock

from clasp_relay.access.audit import Actor, Audit
from clasp_relay.access.console import Administrator, Console
from clasp_relay.access.devices import DeviceWatch
from clasp_relay.access.names import check_username, fold_name, name_keys
from clasp_relay.access.refusals import BadInput, Busy, Missing
from clasp_relay.access.search import Search
from clasp_relay.access.store_calls import StoreCalls
from clasp_relay.access.threads import Workers
from clasp_relay.access.tokens import TokenTable, digest_of
from clasp_relay.core.history.reading import HistoryReader
from clasp_relay.core.records import Param
from clasp_relay.core.session.sessions import SessionTable
from clasp_relay.core.state.shares import Shares
from clasp_relay.logs import events
from clasp_relay.storage.administration import Deletion, Person, PersonFacts
from clasp_relay.storage.files import FileUse
from clasp_relay.storage.users import Invite, SignIn
from clasp_relay.storage.users_sqlite import SqliteUsers
from clasp_relay.wire.address import Pattern

__all__ = ["Deleted", "Files", "Kind", "People", "PersonInfo", "ResetLink", "make_reset"]

RESET_S = 86_400
"""Seconds that a link for a new password is valid."""

AGAIN_S = 60
"""Seconds until the work that is left of a deletion is tried again, if it could not be done."""

SOON_S = 1
"""Seconds until a relay that was not asked to delete a person does its own part of the deletion."""

EXAMINED_AT_ONCE = 500
"""Users or guests that one call of the store returns for a search."""

Kind = Literal["all", "user", "guest"]

OWN = ("/chat/user/", "/chat/requests/")
"""The addresses below these and a person's id are that person's, whoever wrote there."""

_YOURSELF = "This is your own account. Ask another administrator."


class Files(Protocol):
    """The files that people have sent, if the relay keeps files."""

    async def usage(self, subjects: Sequence[str]) -> Sequence[FileUse]:
        """Returns the space that the files of some users take; several values for one with several client addresses."""

    async def remove_all_of(self, subject: str) -> int:
        """Deletes the files of a user; returns their number."""


@dataclass(frozen=True, slots=True)
class PersonInfo:
    """A user or guest, with facts that are not in the account."""

    person: Person
    last_seen_s: int | None
    """Unix seconds: now while a session is open, else when the last token was issued."""
    sessions: int
    sign_ins: int
    params: int
    bytes: int
    files: int | None
    """None if the relay keeps no files."""
    file_bytes: int | None

    def as_json(self) -> dict[str, Any]:
        """Returns the form of the API."""
        person = self.person
        return {
            "user_id": person.user_id,
            "username": person.username,
            "kind": "guest" if person.is_guest else "user",
            "admin": person.is_admin,
            "disabled": person.is_disabled,
            "created_at": person.created_s,
            "last_seen": self.last_seen_s,
            "sessions": self.sessions,
            "sign_ins": self.sign_ins,
            "params": self.params,
            "bytes": self.bytes,
            "files": self.files,
            "file_bytes": self.file_bytes,
        }


@dataclass(frozen=True, slots=True)
class ResetLink:
    """A link for a new password. It is in clear nowhere else."""

    secret: str
    expires_s: int

    @property
    def path(self) -> str:
        """The part of the URL after the relay's own; browsers send nothing after a # to the server."""
        return f"/console/reset#{self.secret}"


def make_reset(now_s: float, random_hex: Callable[[int], str]) -> ResetLink:
    """Returns a new link, to be stored by its digest.

    Args:
        now_s: Unix seconds.
        random_hex: as ``secrets.token_hex``.
    """
    return ResetLink(random_hex(16), int(now_s) + RESET_S)


@dataclass(frozen=True, slots=True)
class Deleted:
    """What was deleted with a person, besides the account.

    Args:
        params: number of params.
        files: number of files.
        messages: number of entries of history; None if they were to be kept, or there is no history.
    """

    params: int
    files: int
    messages: int | None

    def as_json(self) -> dict[str, Any]:
        """Returns the form of the API."""
        return {"params": self.params, "files": self.files, "messages": self.messages}


class People:
    """The people of a relay, for administrators.

    Args:
        store: users, tokens and the decisions of administrators; called through ``sql`` only.
        sql: the thread that the store is called on.
        tokens: the valid tokens.
        devices: reloads device tokens when those of a person begin or cease to be valid.
        console: reloads the decisions.
        audit: the audit log.
        sessions: the live sessions.
        shares: how much of the state each person has.
        search: finds and ends params.
        now_s: Unix seconds.
        random_hex: as ``secrets.token_hex``.
        files: the files that people have sent; None if the relay keeps no files.
        history: the entries that people wrote; None if there is no history.
        acts: tells whether this relay does the work that is left of deletions: without a cluster always, in one while
            it is the decider.
    """

    def __init__(
        self,
        *,
        store: SqliteUsers,
        sql: Workers,
        tokens: TokenTable,
        devices: DeviceWatch,
        console: Console,
        audit: Audit,
        sessions: SessionTable,
        shares: Shares,
        search: Search,
        now_s: Callable[[], float],
        random_hex: Callable[[int], str],
        files: Files | None = None,
        history: HistoryReader | None = None,
        acts: Callable[[], bool] = lambda: True,
    ) -> None:
        self._users = store
        self._store = store.administration
        self._calls = StoreCalls(sql)
        self._tokens = tokens
        self._devices = devices
        self._console = console
        self._audit = audit
        self._sessions = sessions
        self._shares = shares
        self._search = search
        self._now_s = now_s
        self._random_hex = random_hex
        self._files = files
        self._history = history
        self._deleting = DeferredLock()
        self._deletions_due_s = 0.0
        """When unfinished deletions are looked for next, in Unix seconds."""
        self._erasures_due_s = 0.0
        """The same for what is to be erased from this relay's own history."""
        self._acts, self._did_act = acts, True
        self._is_stale = False
        """Whether a decision was made that the relay has not loaded yet."""

    async def page(
        self, search: str, kind: Kind, after: Sequence[str], limit: int
    ) -> tuple[list[PersonInfo], list[str] | None]:
        """Returns users by name, then guests by id.

        Args:
            search: only people with this text in the id or name, irrespective of case; empty for all.
            kind: whether only users or only guests.
            after: the end of the page before; empty for the beginning.
            limit: the most people.

        Returns:
            the people, and ``after`` of the next page; None at the end.
        """
        found: list[Person] = []
        needle = fold_name(search)
        state: list[str] | None = list(after) or (["guest", ""] if kind == "guest" else ["user", "", ""])
        while state is not None and len(found) < limit:
            some = await self._some(state, limit if not needle else EXAMINED_AT_ONCE)
            taken = 0
            for person in some:
                taken += 1
                if not needle or needle in fold_name(person.username) or needle in person.user_id.casefold():
                    found.append(person)
                    if len(found) == limit:
                        break
            state = _next(state, some[:taken], is_end=not some, has_guests=kind == "all")
        return await self._described(found), state

    async def _some(self, state: Sequence[str], limit: int) -> list[Person]:
        if state[0] == "user":
            return await self._calls.run(self._store.users, (state[1], state[2]), limit)
        return await self._calls.run(self._store.guests, state[1], limit, self._now())

    async def one(self, user_id: str) -> tuple[PersonInfo, list[SignIn]]:
        """Returns one person, and the sign-ins that have not ended, the latest first.

        Raises:
            Missing: there is no such person.
        """
        person = await self._calls.run(self._store.person, user_id, self._now())
        described = await self._described([person])
        return described[0], await self._calls.run(self._users.sign_ins, user_id, self._now())

    async def counts(self) -> tuple[int, int]:
        """Returns how many users there are, and how many people are disabled."""
        return await self._calls.run(self._store.counts)

    async def is_account(self, user_id: str) -> bool:
        """Tells whether an id is a registered user's."""
        return await self._calls.run(self._users.user, user_id) is not None

    def last_seen(self, sign_in: SignIn, user_id: str) -> int:
        """Returns when a sign-in was last seen: now while a session of it is open, else its last refresh."""
        in_use = self._tokens.tokens_in_use(user_id)
        return self._now() if any(digest in in_use for digest in sign_in.digests) else sign_in.refreshed_s

    async def take_note(self) -> None:
        """Loads the decisions of administrators after a change; if the store is busy, ``look`` does it later."""
        self._is_stale = True
        # The relay that was asked to delete a person does that at once; this is for what is left, and for others.
        now_s = self._now_s()
        self._deletions_due_s = min(self._deletions_due_s, now_s + AGAIN_S)
        self._erasures_due_s = min(self._erasures_due_s, now_s + SOON_S)
        try:
            await self._console.reload()
            await self._devices.reload()
        except Busy:
            return
        self._is_stale = False

    async def look(self) -> None:
        """Loads the decisions if another process has changed the file, or if that has failed before."""
        if await self._devices.look() or self._is_stale:
            await self.take_note()
            self._deletions_due_s = 0.0
        now_s = self._now_s()
        did_act, self._did_act = self._did_act, self._acts()
        if self._did_act and not did_act:
            self._deletions_due_s = min(self._deletions_due_s, now_s + SOON_S)
        if self._deleting.locked:
            return
        # Not waited for: it may take long, and sessions of disabled people have to end meanwhile.
        if self._did_act and now_s >= self._deletions_due_s:
            Deferred.fromCoroutine(self._finish_deletions()).addErrback(events.AUTH_FAULT.failure)
        elif now_s >= self._erasures_due_s:
            Deferred.fromCoroutine(self._finish_erasures()).addErrback(events.AUTH_FAULT.failure)

    async def disable(self, who: Administrator, address: str, user_id: str) -> None:
        """Ends all sessions and tokens of a person, who cannot sign in until enabled."""
        self._check_other(who, user_id)
        entry = self._audit.entry("admin.disable", who.actor(address), user_id)
        await self._calls.run(self._store.disable, user_id, entry)
        self._console.end_all_of(user_id)
        await self.take_note()

    async def enable(self, who: Administrator, address: str, user_id: str) -> None:
        """Lets a disabled person sign in again."""
        entry = self._audit.entry("admin.enable", who.actor(address), user_id)
        await self._calls.run(self._store.enable, user_id, entry)
        await self.take_note()

    async def rename(self, who: Administrator, address: str, user_id: str, username: str) -> None:
        """Gives a user another name to sign in with."""
        name = check_username(username)
        entry = self._audit.entry("admin.rename", who.actor(address), user_id, detail={"username": name})
        await self._calls.run(self._store.rename, user_id, name, name_keys(name), entry)
        self._tokens.rename(user_id, name)
        self._console.rename(user_id, name)

    async def reset_password(self, who: Administrator, address: str, user_id: str) -> ResetLink:
        """Makes a one-time link with which a user chooses a new password."""
        link = make_reset(self._now_s(), self._random_hex)
        entry = self._audit.entry("admin.reset_password", who.actor(address), user_id)
        await self._calls.run(self._store.add_reset, user_id, digest_of(link.secret), link.expires_s, entry)
        return link

    async def delete(self, who: Administrator, address: str, user_id: str, *, erases_messages: bool) -> Deleted | None:
        """Deletes a person, with tokens, files, and all params that are theirs.

        Args:
            who: the administrator.
            address: the client's.
            user_id: the person's id.
            erases_messages: whether the person's entries are erased from history, too.

        Returns:
            what was deleted; None if some of it could not be deleted now, and is deleted later.
        """
        self._check_other(who, user_id)
        detail = {"messages": "erase" if erases_messages else "keep"}
        entry = self._audit.entry("admin.delete", who.actor(address), user_id, detail=detail)
        await self._calls.run(self._store.delete, user_id, entry, erases_messages=erases_messages)
        self._console.end_all_of(user_id)
        await self.take_note()
        return (await self._finish_deletions()).get(user_id)

    async def _finish_deletions(self) -> dict[str, Deleted]:
        """Does the work that is left of all deletions, one after the other; returns what was deleted, by id."""
        finished: dict[str, Deleted] = {}
        await self._deleting.acquire()
        self._deletions_due_s = self._now_s() + AGAIN_S
        try:
            left = await self._calls.run(self._store.deletions)
            for deletion in left:
                deleted = await self._finish(deletion)
                if deleted is not None:
                    finished[deletion.subject] = deleted
            if len(finished) == len(left):
                self._deletions_due_s = inf
        except Busy:
            pass  # then it is tried again
        finally:
            self._deleting.release()
        return finished

    async def _finish_erasures(self) -> None:
        """Erases the entries of deleted people from this relay's history, whichever relay has deleted them."""
        await self._deleting.acquire()
        self._erasures_due_s = self._now_s() + AGAIN_S
        try:
            left = await self._calls.run(self._store.erasures)
            if None not in [await self._erase(subject) for subject in left]:
                self._erasures_due_s = inf
        except Busy:
            pass  # then it is tried again
        finally:
            self._deleting.release()

    async def _erase(self, subject: str) -> int | None:
        """Erases a person's entries from this relay's history.

        Returns:
            the number of entries; None if that cannot be done now.
        """
        messages: int | None = 0
        if self._history is not None:
            erased: Deferred[int | None] = Deferred()
            self._history.erase_of(subject, erased.callback)
            messages = await erased
        if messages is None:
            self._erasures_due_s = self._now_s() + AGAIN_S
        else:
            await self._calls.run(self._store.erased, subject)
        return messages

    async def _finish(self, deletion: Deletion) -> Deleted | None:
        """Removes what a deleted person has left; returns None if some of it cannot be removed now."""
        subject = deletion.subject
        self._console.end_all_of(subject)
        own: list[str] = []

        def look(param: Param) -> None:
            if _is_own(param, subject):
                own.append(param.address)

        await self._search.each(Pattern.parse("/**"), look)
        await self._search.end(own)
        files = 0 if self._files is None else await self._files.remove_all_of(subject)
        messages = None
        if deletion.erases_messages and self._history is not None:
            messages = await self._erase(subject)
            if messages is None:
                return None
        deleted = Deleted(len(own), files, messages)
        entry = self._audit.entry("person.deleted", Actor(), subject, detail=deleted.as_json())
        await self._calls.run(self._store.deleted, subject, entry)
        return deleted

    async def end_sign_in(self, who: Administrator, address: str, user_id: str, sign_in_id: str) -> None:
        """Revokes the tokens of one sign-in of a person.

        Raises:
            Missing: there is no such sign-in.
        """
        for sign_in in await self._calls.run(self._users.sign_ins, user_id, self._now()):
            if sign_in.sign_in[:8].hex() == sign_in_id:
                await self._audit.record(
                    self._audit.entry(
                        "admin.end_device", who.actor(address), user_id, detail={"device": sign_in.device}
                    )
                )
                self._tokens.revoke(await self._calls.run(self._users.revoke, sign_in.digests[0], self._now()))
                return
        raise Missing("There is no such sign-in, or it has ended.")

    async def choose_registration(
        self, who: Administrator, address: str, registration: str | None, guests: bool | None
    ) -> None:
        """Changes who may register and sign in as a guest, until the next change; None is for the relay's option."""
        choices = {"registration": registration, "guests": None if guests is None else "on" if guests else "off"}
        entry = self._audit.entry("admin.registration", who.actor(address), detail=choices)
        await self._calls.run(self._store.choose, choices, entry)
        await self.take_note()

    async def invites(self) -> list[Invite]:
        """Returns the invites that are valid, the oldest first."""
        return await self._calls.run(self._users.invites, self._now())

    async def make_invite(
        self, who: Administrator, address: str, uses: int, expires_in_s: int | None
    ) -> tuple[str, Invite]:
        """Makes an invite; returns its secret, which is in clear nowhere else, and its record."""
        secret, now = self._random_hex(16), self._now()
        expires_s = None if expires_in_s is None else now + expires_in_s
        invite = Invite(digest_of(secret), now, expires_s, uses)
        detail = {"uses": uses, "expires_at": expires_s}
        await self._audit.record(self._audit.entry("admin.invite", who.actor(address), invite.id, detail=detail))
        await self._calls.run(self._users.add_invite, invite.digest, now, expires_s, uses)
        return secret, invite

    async def revoke_invite(self, who: Administrator, address: str, invite_id: str) -> None:
        """Revokes an invite.

        Raises:
            Missing: there is none with that id.
        """
        if invite_id not in {each.id for each in await self.invites()}:
            raise Missing("There is no such invite.")
        await self._audit.record(self._audit.entry("admin.revoke_invite", who.actor(address), invite_id))
        await self._calls.run(self._users.revoke_invite, invite_id)

    async def _described(self, people: Sequence[Person]) -> list[PersonInfo]:
        if not people:
            return []
        ids = [each.user_id for each in people]
        facts = await self._calls.run(self._store.facts, ids, self._now())
        used: dict[str, tuple[int, int]] = {}
        for use in () if self._files is None else await self._files.usage(ids):
            files, size_bytes = used.get(use.subject, (0, 0))
            used[use.subject] = files + use.files, size_bytes + use.charged
        return [self._info(each, facts.get(each.user_id), used.get(each.user_id, (0, 0))) for each in people]

    def _info(self, person: Person, facts: PersonFacts | None, used: tuple[int, int]) -> PersonInfo:
        user_id = person.user_id
        sessions = len(self._sessions.of_subject(user_id))
        last_s = None if facts is None else facts.last_issued_s
        files = (None, None) if self._files is None else used
        return PersonInfo(
            person,
            self._now() if sessions else last_s,
            sessions,
            0 if facts is None else facts.sign_ins,
            self._shares.params_of(user_id),
            self._shares.bytes_of(user_id),
            *files,
        )

    def _check_other(self, who: Administrator, user_id: str) -> None:
        if who.user_id == user_id:
            raise BadInput(_YOURSELF)

    def _now(self) -> int:
        return int(self._now_s())


def _next(state: Sequence[str], taken: Sequence[Person], *, is_end: bool, has_guests: bool) -> list[str] | None:
    """Returns ``after`` of the page that follows the people that were taken."""
    if is_end:
        return ["guest", ""] if state[0] == "user" and has_guests else None
    last = taken[-1]
    return ["guest", last.user_id] if last.is_guest else ["user", last.order, last.user_id]


def _is_own(param: Param, user_id: str) -> bool:
    """Tells whether a param is a person's: below their own address, or written by them at one that names them."""
    if any(param.address.startswith(f"{prefix}{user_id}/") for prefix in OWN):
        return True
    return param.subject == user_id and user_id in param.address.split("/")
