"""The catalogue of log events: every line that the relay can log, with its name, level, part and sentence.

No other module logs: it calls ``log`` or ``failure`` of one of these. ``docs/operations.md`` lists them all; a test
compares the two. Values are text and numbers, so that no line shows how Python writes an object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

__all__ = ["CATALOGUE", "NOT_OURS", "Event", "auth_reason", "log_auth_call"]

NOT_OURS = "twisted.message"
"""The event name of lines that are not the relay's: those of Twisted, and Python's warnings."""

_LEVELS = {
    "error": LogLevel.error,
    "warn": LogLevel.warn,
    "info": LogLevel.info,
    "debug": LogLevel.debug,
    "trace": LogLevel.debug,
}


@dataclass(frozen=True, slots=True)
class Event:
    """A kind of log line.

    Args:
        name: what happened, as ``subject.verb``; the field ``event`` of JSON lines.
        level: one of ``levels.LOG_LEVELS``.
        part: one of ``levels.PARTS``.
        sentence: the text, with ``{value}`` where a value goes.
    """

    name: str
    level: str
    part: str
    sentence: str
    logger: Logger = field(init=False, repr=False, compare=False)
    """Twisted's logger of the part."""

    def __post_init__(self) -> None:
        """Makes the logger, with a namespace for the part."""
        namespace = "clasp_relay" if self.part == "relay" else f"clasp_relay.{self.part}"
        object.__setattr__(self, "logger", Logger(namespace=namespace))

    def log(self, logger: Logger | None = None, /, **values: str | float) -> None:
        """Logs the event.

        Args:
            logger: logs it instead of the event's own logger.
            values: the values that the sentence names, and others that only JSON lines show.
        """
        logger = self.logger if logger is None else logger
        if self.level == "trace":
            values["is_trace"] = True
        logger.emit(_LEVELS[self.level], self.sentence, event=self.name, **values)

    def failure(self, failure: Failure | None = None, logger: Logger | None = None, /, **values: str | float) -> None:
        """Logs the event with a traceback.

        Args:
            failure: the failure with the traceback; None for the exception that is being handled.
            logger: logs it instead of the event's own logger.
            values: the values that the sentence names, and others that only JSON lines show.
        """
        logger = self.logger if logger is None else logger
        level = _LEVELS[self.level]
        logger.failure(self.sentence, Failure() if failure is None else failure, level, event=self.name, **values)


# The process: start, stop, configuration.
RELAY_LISTENING = Event("relay.listening", "info", "relay", "{name} listens on {address} for WebSocket connections")
RELAY_OPEN_MODE = Event(
    "relay.open_mode", "warn", "relay", "open mode: everybody who can reach this port may read and write everything"
)
RELAY_STOPPING = Event("relay.stopping", "info", "relay", "the relay is stopping; open sessions: {sessions}")
RELAY_STOPPED = Event("relay.stopped", "info", "relay", "the relay has stopped; {outcome}")
BUNDLES_LOST = Event(
    "bundles.lost", "warn", "relay", "scheduled bundles whose time had not come are lost with the stop: {count}"
)
RELAY_NOT_STARTED = Event("relay.not_started", "error", "relay", "the relay cannot start: {error}")
RELAY_FAULT = Event("relay.fault", "error", "relay", "a fault of the relay while it handled {what}")
AUTH_LISTENING = Event("auth.listening", "info", "relay", "the auth API listens on {address}")
DOOR_LISTENING = Event("door.listening", "info", "relay", "{door} listens on {address}")
DOOR_POWERLESS = Event(
    "door.powerless",
    "warn",
    "relay",
    "{door}: clients without a token may do nothing, since no scopes are given to anonymous ones; {remedy}",
)
ANNOUNCED = Event("relay.announced", "info", "relay", "announced by mDNS as {name} on port {port} of {address}")
ANNOUNCE_FAILED = Event("relay.not_announced", "warn", "relay", "the relay is not announced by mDNS: {cause}")
HEALTH_LISTENING = Event("health.listening", "info", "relay", "health checks and metrics are served on {address}")
METRICS_LISTENING = Event("metrics.listening", "info", "relay", "metrics are served on {address}")
APP_SERVED = Event("app.served", "info", "relay", "the web app in {folder} is served on the auth port")
POLICY_LOADED = Event("policy.loaded", "info", "relay", "policy in force: {policy}")
POLICY_MISSING = Event(
    "policy.missing",
    "warn",
    "relay",
    "no policy is in force: everybody who signs in, guests included, may read and write everything",
)
POLICY_NOTICE = Event("policy.notice", "info", "relay", "policy: {notice}")
ORIGINS_UNLIMITED = Event(
    "origins.unlimited",
    "warn",
    "relay",
    "web pages of every origin may talk to this relay; --cors-origin limits them to a list",
)
JOB_FAILED = Event("job.failed", "error", "relay", "the periodic job «{job}» failed; it runs again after its interval")
OPTION_IGNORED = Event("option.ignored", "warn", "relay", "{notice}")
FILES_LIMITED = Event(
    "files.limited",
    "warn",
    "relay",
    "open files are limited to {limit}, which is enough for {room} sessions and not for --max-sessions {max_sessions}:"
    " raise the limit (ulimit -n, systemd's LimitNOFILE=, Docker's --ulimit nofile=)",
)
FILES_USED_UP = Event(
    "files.used_up",
    "warn",
    "net",
    "open files are used up: new connections are closed until some are free; raise the limit (ulimit -n, systemd's"
    " LimitNOFILE=, Docker's --ulimit nofile=)",
)
SYSTEMD_NOT_TOLD = Event("systemd.not_told", "warn", "relay", "systemd could not be told {state}: {cause}")
LOG_OVERFLOW = Event("log.overflow", "warn", "net", "events from too many clients to log each client: {count}")

# Storage.
STATE_LOADED = Event("state.loaded", "info", "storage", "{params} params loaded from {path}")
STATE_MISSING = Event("state.missing", "info", "storage", "there is no state file {path}: the relay starts empty")
STATE_WARNING = Event("state.warning", "warn", "storage", "{text}")
SNAPSHOT_SAVED = Event(
    "snapshot.saved", "info", "storage", "snapshot saved: {params} params, {size_bytes} bytes in {duration_ms} ms"
)
SNAPSHOT_FAILED = Event(
    "snapshot.failed", "error", "storage", "snapshot not saved: {cause}; the relay tries again after the next interval"
)

JOURNAL_OPENED = Event(
    "journal.opened",
    "info",
    "storage",
    "{path}: the journal is open with SQLite {sqlite}; an ACK means that a write survives {survives}",
)
JOURNAL_RECOVERED = Event(
    "journal.recovered", "info", "storage", "{path}: {rows} changes after the state file applied in {duration_ms} ms"
)
JOURNAL_TAKEN_OVER = Event(
    "journal.taken_over",
    "info",
    "storage",
    "{path}: the Rust relay's journal was taken over: {entries} entries, {kept} of them kept as history, {params} "
    "params; the old file is kept as {old}",
)
JOURNAL_WARNING = Event("journal.warning", "warn", "storage", "{text}")
JOURNAL_LOST = Event(
    "journal.lost",
    "error",
    "storage",
    "{path}: a commit failed ({cause}): nothing more is acknowledged or saved, and the relay stops",
)
JOURNAL_FAULT = Event("journal.fault", "error", "storage", "a fault of the relay while it used the journal")
HISTORY_IN_FORCE = Event("history.in_force", "info", "storage", "history is kept of {paths}")
HISTORY_CHANGED = Event(
    "history.changed",
    "info",
    "storage",
    "{path}: the history rules have changed; {gone} entries that they do not keep were removed",
)
HISTORY_UNREADABLE = Event("history.unreadable", "warn", "storage", "{path}: a REPLAY cannot be answered ({cause})")
HISTORY_NOT_ERASED = Event(
    "history.not_erased",
    "warn",
    "storage",
    "{path}: the messages of a deleted person cannot be erased now ({cause}); the next attempt is in a minute",
)
JOURNAL_DISK_LOW = Event(
    "journal.disk_low",
    "warn",
    "storage",
    "the disk of {path} has less than {min_free_bytes} bytes free: writes are refused until there is more",
)
JOURNAL_DISK_OK = Event(
    "journal.disk_ok", "info", "storage", "the disk of {path} has free space again: writes are accepted"
)
BUNDLE_NOT_RUN = Event(
    "bundle.not_run",
    "warn",
    "core",
    "a scheduled bundle that session {session} had sent before the relay was restarted did not run: {reason}",
)

FILES_SWEPT = Event(
    "files.swept",
    "info",
    "storage",
    "after a relay that did not stop in order: {parts} half-written files and {records} records without a file removed",
)
FILES_UNKNOWN = Event(
    "files.unknown",
    "warn",
    "storage",
    "files/ has {count} files that files.db does not know: they are served to nobody, and stay; put back the files.db"
    " that belongs to them, or remove them",
)
FILES_ENDED = Event("files.ended", "info", "storage", "{count} files deleted that nobody had read for {days} days")
FILE_NOT_STORED = Event("file.not_stored", "error", "storage", "a file could not be written to the disk: {cause}")
FILE_NOT_KEPT = Event(
    "file.not_kept", "warn", "storage", "a file is in the cluster's object store, and has no copy here: {cause}"
)
FILE_LOST = Event(
    "file.lost",
    "error",
    "storage",
    "file {file} is not in the cluster's object store, or damaged there: it cannot be read; put back a backup of"
    " nats-server's store_dir, or have it sent again",
)
FILE_COPY_BAD = Event(
    "file.copy_bad",
    "warn",
    "storage",
    "the cluster's object store has lost file {file}, and this relay's copy cannot be read: {cause}",
)
FILES_REMOVED = Event(
    "files.removed",
    "info",
    "storage",
    "after relays that did not stop in order: {records} records of half-sent files and {objects} objects without a"
    " record removed",
)
FILES_WITHOUT_RECORDS = Event(
    "files.without_records",
    "warn",
    "storage",
    "{count} of {all} objects in the cluster's object store have no record, and stay: put back the users.db that they"
    " belong to, or remove them (nats object rm)",
)
FILES_RESTORED = Event(
    "files.restored",
    "warn",
    "storage",
    "the cluster's object store had lost files: {count} of them were put back from this relay's copies",
)
FILES_OF_BEFORE = Event(
    "files.of_before",
    "warn",
    "storage",
    "{path} is of this relay alone: what users sent before it was in a cluster is moved into the object store",
)
FILES_MOVED = Event(
    "files.moved", "info", "storage", "{count} files of {path} were moved into the cluster's object store"
)
FILE_NOT_MOVED = Event(
    "file.not_moved",
    "error",
    "storage",
    "file {file} of {path} cannot be read, so it is not moved into the cluster's object store before the next start:"
    " {cause}",
)
FILES_ROOM_SMALL = Event(
    "files.room_small",
    "warn",
    "cluster",
    "the cluster's object store takes {bytes} bytes of files, and --files-max-bytes needs {wanted}: give nats-server a"
    " larger max_file_store, or lower --files-max-bytes",
)
FILES_NO_ROOM = Event(
    "files.no_room", "error", "cluster", "nats-server has no space for files: {cause}; give it a larger max_file_store"
)
FILES_REFUSED = Event("files.refused", "error", "cluster", "the cluster's object store refuses: {cause}")
FILES_FAULT = Event("files.fault", "error", "http", "a fault of the relay while it took or sent a file")

# Sessions and their messages.
SESSION_CONNECTED = Event(
    "session.connected", "info", "core", "session {session} connected from {address}: client {client}, user {subject}"
)
SESSION_DISCONNECTED = Event(
    "session.disconnected",
    "info",
    "core",
    "session {session} from {address} disconnected after {duration_s} s: {cause}"
    " (user {subject}, {messages} messages, {errors} errors)",
)
SESSION_NOT_ESTABLISHED = Event(
    "session.not_established",
    "info",
    "core",
    "connections from {address} that ended before their HELLO was accepted: {count};"
    " the last one, {session}, after {duration_s} s: {cause}",
)
SESSION_MESSAGES_REFUSED = Event(
    "session.messages_refused",
    "info",
    "core",
    "messages of session {session} refused: {count}, the last one with ERROR {code}: {reason}{about}",
)
SESSION_RATE_LIMITED = Event(
    "session.rate_limited",
    "warn",
    "core",
    "session {session} from {address} is over its rate limit; messages dropped: {count} (user {subject})",
)
SESSION_OPERATION = Event("session.operation", "debug", "core", "session {session}: {operation}")
SESSION_SLOW = Event(
    "session.slow",
    "warn",
    "net",
    "session {session} from {address} is slow: {waiting_bytes} bytes wait; frames dropped: {count}",
)
FRAME_RECEIVED = Event("frame.received", "trace", "net", "session {session} < {frame}")
FRAME_SENT = Event("frame.sent", "trace", "net", "session {session} > {frame}")

# Connections.
OSC_SOURCES = Event(
    "osc.sources", "info", "net", "new OSC sources at {address}: {count}, the last one session {session}"
)
HTTP_REQUESTS = Event(
    "http.requests",
    "info",
    "net",
    "HTTP requests from {address} with a session of their own: {count}, the last one session {session}",
)
DOOR_REFUSED = Event(
    "door.refused", "warn", "net", "{door}: messages from {address} refused: {count}, the last one because: {reason}"
)
RULES_LOADED = Event("rules.loaded", "info", "relay", "{count} rules active, {disabled} disabled, from {path}")
RULES_NOT_RELOADED = Event("rules.not_reloaded", "error", "relay", "the rules stay as they were: {reason}")
RULE_LEFT_OUT = Event(
    "rule.left_out", "warn", "relay", "rule {rule}: actions dropped: {count}, the last one because: {reason}"
)
RULE_FAULT = Event("rule.fault", "error", "relay", "a fault of the relay while a rule acted")
CONNECTION_REFUSED = Event(
    "connection.refused", "warn", "net", "connections from {address} refused: {count}, the last one because: {reason}"
)
CONNECTION_DETAIL = Event("connection.detail", "debug", "net", "{detail}")
CONNECTION_FAULT = Event("connection.fault", "error", "net", "a fault of the relay while it {action}")
PROXY_UNTRUSTED = Event(
    "proxy.untrusted",
    "warn",
    "net",
    "{address} sends X-Forwarded-For and is not trusted: all clients behind that proxy share one address and its"
    " limits; --trusted-proxy {address} tells them apart",
)
TLS_VALID = Event("tls.valid", "info", "net", "the certificate in {path} is valid until {end}")
TLS_EXPIRED = Event("tls.expired", "warn", "net", "the certificate in {path} expired at {end}: clients will refuse it")
TLS_RELOADED = Event("tls.reloaded", "info", "net", "new connections use the certificate in {path} and its key")
TLS_NOT_RELOADED = Event("tls.not_reloaded", "error", "net", "{error}; the previous certificate stays in use")

# Accounts.
AUTH_REGISTER = Event("auth.register", "info", "auth", "registration from {address} {result}")
AUTH_LOGIN = Event("auth.login", "info", "auth", "sign-in from {address} {result}")
AUTH_GUEST = Event("auth.guest", "info", "auth", "guest sign-in from {address} {result}")
AUTH_LOGOUT = Event("auth.logout", "info", "auth", "sign-out from {address} {result}")
AUTH_REFRESH = Event("auth.refresh", "info", "auth", "token refresh from {address} {result}")
AUTH_PASSWORD = Event("auth.password", "info", "auth", "password change from {address} {result}")
AUTH_END_SESSION = Event(
    "auth.end_session", "info", "auth", "sign-out of a session of the same user from {address} {result}"
)
AUTH_OTHER = Event("auth.other", "info", "auth", "call of {call} from {address} {result}")
AUTH_REFUSED = Event("auth.refused", "warn", "auth", "refused calls of {call} from {address}: {count} ({reason})")
AUTH_FAULT = Event("auth.fault", "error", "auth", "a fault of the relay while it answered a request to the auth API")
AUTH_HASH_KEPT = Event(
    "auth.hash_kept",
    "info",
    "auth",
    "the relay is busy: a weak password hash is replaced at the user's next sign-in",
)
AUTH_HASH_UNREADABLE = Event(
    "auth.hash_unreadable", "warn", "auth", "a stored password hash cannot be read: its user cannot sign in"
)
HASHING_NOT_NICE = Event("auth.hashing_not_nice", "info", "auth", "password hashing runs at normal priority: {cause}")
AUTH_CONSOLE = Event("auth.console", "info", "auth", "sign-in to the console from {address} {result}")
AUTH_RESET = Event("auth.reset", "info", "auth", "new password by a one-time link from {address} {result}")
AUDIT_FAULT = Event("audit.fault", "error", "auth", "entries of the audit log cannot be written")
HTTP_READ_FAULT = Event("http.read_fault", "error", "http", "a fault of the relay while it read an HTTP request")
TOKEN_SURPLUS_KEPT = Event(
    "token.surplus_kept", "info", "auth", "{count} tokens too many stay until the next sign-in: the relay is busy"
)
TOKEN_TIMES_KEPT = Event(
    "token.times_kept",
    "warn",
    "auth",
    "the new expiry of {count} tokens is forgotten at a restart: the relay is busy",
)
CLOCK_UNSET = Event("clock.unset", "warn", "auth", "the machine's clock is not set: tokens move with it when it is")
CLOCK_SET = Event(
    "clock.set", "warn", "auth", "the machine's clock was set by {seconds} s: {count} tokens moved with it"
)
GUEST_PARAMS_ENDED = Event(
    "guests.params_ended", "info", "auth", "{count} params ended that guests had written for themselves"
)
USERS_HELD = Event(
    "users.held",
    "warn",
    "auth",
    "{file}: another process holds the users' database; calls get 503 until it ends",
)
TOKEN_WRITE_FAULT = Event(
    "token.write_fault", "error", "auth", "a fault of the relay while it wrote the new expiry of tokens"
)
SESSION_IDS_FAULT = Event(
    "session.ids_fault", "error", "auth", "a fault of the relay while it stored which session ids were given to whom"
)
PUSH_READY = Event("push.ready", "info", "auth", "web push is on; subscribed browsers: {count}")
PUSH_NO_CONTACT = Event(
    "push.no_contact",
    "info",
    "auth",
    "--push-contact is not set: some push services (Apple's) then refuse messages",
)
PUSH_FAILED = Event("push.failed", "warn", "auth", "push messages to {host} fail: {cause}")
PUSH_FAULT = Event("push.fault", "error", "auth", "a fault of the relay while it sent or kept a push subscription")
WATCHER_FAULT = Event("watcher.fault", "error", "relay", "a fault of the relay while it watched params: {watcher}")
TOKEN_DEVICES = Event("token.devices", "info", "auth", "device tokens: {count}; new: {new}, revoked: {revoked}")
TOKEN_UNREADABLE = Event(
    "token.unreadable", "warn", "auth", "the scopes of {subject}'s device token cannot be read: it is not accepted"
)
TOKEN_END_FAULT = Event("token.end_fault", "error", "auth", "a fault of the relay while it ended a token's sessions")
SECRET_MADE = Event("secret.made", "info", "auth", "{what} written to {path}")
ADMIN_TOKEN_EXPOSED = Event(
    "admin_token.exposed", "warn", "auth", "others than its owner may read the admin token in {path}; chmod it to 600"
)

# The cluster.
CLUSTER_UNREACHABLE = Event(
    "cluster.unreachable",
    "warn",
    "cluster",
    "{places} cannot be reached ({cause}); the relay is not ready and tries again",
)
CLUSTER_CONNECTED = Event("cluster.connected", "info", "cluster", "connected to the engine of the cluster {cluster}")
CLUSTER_CUT_OFF = Event(
    "cluster.cut_off", "warn", "cluster", "the connection to the engine of the cluster {cluster} is lost; trying again"
)
CLUSTER_SERVER_LEFT = Event(
    "cluster.server_left", "warn", "cluster", "{server} does not reach the log of the cluster: connecting to {other}"
)
CLUSTER_JOINED = Event(
    "cluster.joined", "info", "cluster", "{relay} follows the log of its cluster from batch {seq} on"
)
CLUSTER_NEEDS_IMAGE = Event(
    "cluster.needs_image",
    "warn",
    "cluster",
    "the log begins at batch {seq} and does not have the whole state: waiting for a relay that has it",
)
CLUSTER_GAP = Event(
    "cluster.gap",
    "warn",
    "cluster",
    "the log has lost batch {seq} before this relay has read it: it joins again when a relay that has it runs",
)
CLUSTER_IMAGE_LATE = Event(
    "cluster.image_late",
    "warn",
    "cluster",
    "no other relay has sent its state after {count} requests; asking again",
)
CLUSTER_DECIDER = Event(
    "cluster.decider", "info", "cluster", "{relay} decides from now on (epoch {epoch}, batch {seq})"
)
CLUSTER_DEPOSED = Event(
    "cluster.deposed", "warn", "cluster", "another relay decides: this one follows again (its epoch was {epoch})"
)
CLUSTER_HANDS_OVER = Event("cluster.hands_over", "info", "cluster", "this relay hands over (its epoch was {epoch})")
CLUSTER_RELAY_GONE = Event(
    "cluster.relay_gone", "warn", "cluster", "the relay {relay} is not heard any more: its sessions have ended"
)
CLUSTER_EXPELLED = Event(
    "cluster.expelled",
    "warn",
    "cluster",
    "the other relays count this one as lost: its sessions end, and it joins again",
)
CLUSTER_SESSIONS_CLOSED = Event(
    "cluster.sessions_closed", "warn", "cluster", "no answer of the engine for too long: {sessions} sessions were ended"
)
CLUSTER_NAME_TWICE = Event(
    "cluster.name_twice",
    "warn",
    "cluster",
    "there is another relay with the name {relay}: give each its own --relay-name",
)
CLUSTER_CLOCKS_APART = Event(
    "cluster.clocks_apart",
    "warn",
    "cluster",
    "this machine's clock is {seconds} s {direction} the decider's: have NTP set the clocks of all machines",
)
CLUSTER_MESSAGE_BAD = Event("cluster.message_bad", "warn", "cluster", "a message on the bus is dropped: {error}")
CLUSTER_TOO_LONG = Event(
    "cluster.too_long",
    "error",
    "cluster",
    "the engine takes no batch of {count} bytes: what was asked is decided again, or answered with ERROR 503",
)
CLUSTER_ALARM = Event("cluster.alarm", "error", "cluster", "alarm: {text}")
CLUSTER_KEY_TAKEN = Event(
    "cluster.key_taken",
    "info",
    "cluster",
    "client addresses are hashed with the key of the other relays from now on",
)
CLUSTER_LOST = Event("cluster.lost", "error", "cluster", "the relay leaves its cluster and stops: {text}")
CLUSTER_FAULT = Event("cluster.fault", "error", "cluster", "a fault of the relay in its part of the cluster")
WORKER_STARTED = Event("worker.started", "info", "cluster", "{worker} runs as process {process}")
WORKER_ENDED = Event("worker.ended", "warn", "cluster", "{worker} has ended ({status}); it starts again")
WORKERS_LOST = Event(
    "workers.lost", "error", "cluster", "{worker} has ended {count} times within {seconds} s: all workers stop"
)

CATALOGUE: Mapping[str, Event] = {value.name: value for value in tuple(globals().values()) if isinstance(value, Event)}
"""All events, by name."""

_AUTH_CALLS: Mapping[str, Event] = {
    "register": AUTH_REGISTER,
    "login": AUTH_LOGIN,
    "guest": AUTH_GUEST,
    "logout": AUTH_LOGOUT,
    "refresh": AUTH_REFRESH,
    "password": AUTH_PASSWORD,
    "end session": AUTH_END_SESSION,
    "console": AUTH_CONSOLE,
    "reset": AUTH_RESET,
}

_AUTH_REASONS = {
    "error": "a fault of the relay",
    "BadInput": "malformed request",
    "Busy": "the relay is busy",
    "Forbidden": "the operator does not allow it",
    "Limited": "too many attempts",
    "Missing": "there is no such thing",
    "Taken": "the name or id is taken",
    "Unauthenticated": "wrong name or password, or no valid token",
}


def auth_reason(outcome: str) -> str:
    """Returns why a call of the auth API failed, in words; ``outcome`` is the label of ``clasp_auth_total``."""
    return _AUTH_REASONS.get(outcome, outcome)


def log_auth_call(call: str, address: str, outcome: str, user_id: str) -> None:
    """Logs one call of the auth API.

    Args:
        call: its name, such as ``login``.
        address: the client's.
        outcome: as in ``clasp_auth_total``.
        user_id: whose call it was; empty when that is not known.
    """
    event = _AUTH_CALLS.get(call, AUTH_OTHER)
    result = "succeeded" if outcome == "ok" else f"failed: {auth_reason(outcome)}"
    result += f", user {user_id}" if user_id else ""
    event.log(call=call, address=address, outcome=outcome, user_id=user_id, result=result)
