"""The limits that ``docs/operations.md`` tells of are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay import service
from clasp_relay.access import (
    accounts,
    audit,
    console,
    file_quotas,
    files,
    passwords,
    session_ids,
    shared_files,
    store_calls,
    tickets,
    tokens,
)
from clasp_relay.command_line.option_table import DEFAULTS
from clasp_relay.core import commit, relay
from clasp_relay.core.fanout import gestures, throttles
from clasp_relay.core.handlers import reads
from clasp_relay.core.history import replays
from clasp_relay.core.session import account, schedule, sessions
from clasp_relay.core.state import params, signals
from clasp_relay.doors import osc, osc_source, packet_queue
from clasp_relay.doors.mqtt import broker, connecting, messages, publishing, session, subscribing
from clasp_relay.http import admin_api, api_sessions, connections, files_api, params_api, site
from clasp_relay.logs import ring
from clasp_relay.net import admission, frames, outbox, reading, turn
from clasp_relay.push import chat, destinations, sender, subscriptions
from clasp_relay.storage import audit as audit_rows
from clasp_relay.storage import file_cache, sent_files
from clasp_relay.storage.journal import journal_log
from clasp_relay.wire import address, constants
from clasp_relay.wire.mqtt import packets
from clasp_relay.wire.osc import packets as osc_packets

ROOT = Path(__file__).parent.parent.parent


def size(number: object) -> str:
    """Returns a number of bytes as people write it."""
    assert isinstance(number, int), number
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number >= factor:
            return f"{number / factor:.4g} {unit}"
    return f"{number} bytes"


def pace(of: tuple[float, int]) -> str:
    """Returns a rate as people write it."""
    per_second, _ = of
    return f"{per_second:g} a second" if per_second >= 1 else f"1 in {1 / per_second:g} s"


LIMITS = {
    "params |": f"{DEFAULTS['max_params']:,}",
    "size of all addresses and values |": size(DEFAULTS["max_state_bytes"]),
    "params of one user (not in open mode); of one client address: four times that |": (
        f"{DEFAULTS['max_params_per_subject']:,}"
    ),
    "size of the params of one user": size(DEFAULTS["max_bytes_per_subject"]),
    "the last tenth": (
        f"for users with less than {size(params.SMALL_BYTES)}; "
        f"from client addresses with less than 1/{params.ADDRESSES} of that tenth"
    ),
    "params that one write evicts": f"{params.LOOKED_AT}",
    "announced signals, 200 bytes each": (
        f"{size(signals.MAX_SIGNAL_BYTES)}; {size(signals.MAX_SIGNAL_BYTES // signals.SHARE)}; "
        f"{size(signals.MAX_SIGNAL_BYTES // signals.ADDRESS_SHARE)}"
    ),
    "announced signals with wildcards": (
        f"{signals.MAX_WILDCARDS:,}; {signals.MAX_WILDCARDS // signals.SHARE}; "
        f"{signals.MAX_WILDCARDS // signals.ADDRESS_SHARE}"
    ),
    "changes that wait to be recorded": size(journal_log.MAX_QUEUED_BYTES),
    "messages per second and session": (
        f"the policy's, else {service.MESSAGES_PER_SECOND:g} with a burst of "
        f"{service.MESSAGES_PER_SECOND * service.BURST_FACTOR:g}"
    ),
    "time of a session's messages": "; ".join(
        f"{each * 1e3:g} ms" for each in (reading.SLICE_S, reading.FRESH_S, reading.REST_S)
    ),
    "where a turn has no time": "one of each client address in turn",
    "time for which messages that are to be written": (
        f"{turn.DELAY_PER_SESSION_S * 1e3:g} ms; {turn.MAX_DELAY_S * 1e3:g} ms"
    ),
    "what is kept for a session": size(DEFAULTS["max_session_memory"]),
    "bytes that wait for a slow session": size(admission.NetLimits().outbox_bytes),
    "what a client calls itself": f"{sessions.MAX_NAME_CHARACTERS} characters",
    "subscriptions of a session": f"{reads.MAX_SUBSCRIPTIONS:,}",
    "SNAPSHOTs that wait": f"{outbox.MAX_SNAPSHOTS:,}; {commit.MAX_HELD_ANSWERS:,}",
    "gestures of a session": f"{gestures.MAX_OPEN:,}",
    "addresses at which maxRate": f"{throttles.MAX_ADDRESSES:,}",
    "payload of a frame": f"{constants.MAX_PAYLOAD_BYTES:,} bytes",
    "fragments of a WebSocket message": f"{frames.MAX_FRAGMENTS:,}",
    "an address or a pattern": f"{address.MAX_SEGMENTS} segments and {constants.MAX_ADDRESS_BYTES:,} bytes",
    "wildcards of a pattern": f"{address.MAX_WILDCARDS}, at most {address.MAX_SEGMENT_WILDCARDS} in a segment",
    "keys, values and items": f"{constants.MAX_LEGACY_VALUE_NODES:,}; {constants.MAX_LEGACY_NODES:,}",
    "commas, colons and brackets": f"{constants.MAX_JSON_MARKS:,}",
    "strings, bytes, arrays": f"{constants.MAX_VALUE_PARTS:,}",
    "signal definitions": f"{constants.MAX_DEFINITIONS:,}",
    "members of a BUNDLE": f"{constants.MAX_BUNDLE_MEMBERS:,}",
    "messages that wait behind": f"{relay.MAX_HELD:,}",
    "scheduled bundles of a session": f"{schedule.MAX_PENDING:,}; {schedule.MAX_AHEAD_US // 3_600_000_000} h",
    "scheduled bundles of all": size(schedule.MAX_PENDING_BYTES),
    "entries of a REPLAY": f"{replays.DEFAULT_LIMIT:,}; {replays.MAX_LIMIT:,}",
    "REPLAYs of a session": f"{replays.MAX_WAITING}",
    "frames that cannot be decoded": f"{relay.MAX_BAD_FRAMES} in {relay.BAD_FRAMES_US // 1_000_000} s",
    "sessions; connections": f"{DEFAULTS['max_sessions']:,}",
    "connections from one client address": f"{DEFAULTS['max_sessions_per_address']}",
    "TLS and the WebSocket upgrade": "; ".join([f"{admission.NetLimits().hello_timeout_s:g} s"] * 2),
    "control frames before HELLO": (
        f"{frames.MAX_EARLY_CONTROL_FRAMES}; {frames.MAX_CONTROL_FRAMES_PER_S}; {1 / frames.PONG_INTERVAL_S:g}"
    ),
    "HTTP connections": f"{connections.MAX_CONNECTIONS:,}",
    "idle HTTP connections": f"{connections.MAX_IDLE_PER_ADDRESS}",
    "an HTTP header": (
        f"{connections.HEADER_TIMEOUT_S:g} s; {connections.BODY_TIMEOUT_S:g} s; {connections.STALL_TIMEOUT_S:g} s"
    ),
    "header of an HTTP request": f"{connections.MAX_HEADERS}; {size(frames.MAX_REQUEST_BYTES)}",
    "body of an HTTP request": size(site.MAX_BODY_BYTES),
    "tokens that use the HTTP API": f"{api_sessions.MAX_HTTP_SESSIONS:,}; {api_sessions.IDLE_S:g} s",
    "tickets": f"{tickets.MAX_TICKETS_PER_TOKEN}; {tickets.MAX_TICKETS:,}",
    "params in a list of the HTTP API": (
        f"{params_api.LIST_LIMIT:,}; {params_api.MAX_LIST_LIMIT:,} and {size(api_sessions.MAX_LIST_BYTES)}"
    ),
    "ranges of a file": "1",
    "valid tokens in all": f"{tokens.MAX_TOKENS:,}; {tokens.MAX_TOKENS * tokens.MAX_GUEST_TOKENS_SHARE:,.0f}",
    "users who are signed in": f"{accounts.MAX_WITHOUT_TOKEN:,}",
    "valid tokens of one subject": f"{tokens.MAX_TOKENS_PER_SUBJECT}",
    "valid tokens of guests": f"{DEFAULTS['max_guest_tokens_per_address']:,}",
    "tokens of guests kept": f"{DEFAULTS['max_guest_tokens_per_address']:,}",
    "session ids that are remembered": f"{session_ids.MAX_IDS_PER_SUBJECT}; {session_ids.MAX_IDS:,}",
    "browsers that are told": (
        f"{subscriptions.MAX_PER_SUBJECT}; {subscriptions.MAX_PER_GUEST_ADDRESS}; "
        f"{subscriptions.MAX_SUBSCRIPTIONS * subscriptions.GUESTS_SHARE:,.0f}; {subscriptions.MAX_SUBSCRIPTIONS:,}"
    ),
    "push messages": (
        f"one in {chat.EVERY_S} s; {sender.MAX_WAITING:,} and {sender.MAX_WAITING_PER_SUBJECT}; "
        f"{sender.AT_ONCE} and {sender.AT_ONCE_PER_LANE}"
    ),
    "push services whose names": (
        f"{destinations.LOOK_UPS_AT_ONCE} and {destinations.LOOK_UPS_AT_ONCE_IN_LANE}; "
        f"{destinations.MAX_LOOK_UPS_WAITING} and {destinations.MAX_LOOK_UPS_WAITING_IN_LANE}"
    ),
    "passwords that are hashed": (
        f"{passwords.HASHES_AT_ONCE} and {passwords.MAX_WAITING_HASHES}; {passwords.MAX_WAITING_HASHES_PER_ADDRESS}"
    ),
    "calls about accounts": f"{store_calls.MAX_WAITING_CALLS:,}; {store_calls.MAX_WAITING_CALLS_PER_ADDRESS}",
    "console tokens": f"{console.MAX_CONSOLE_TOKENS:,}",
    "items of a page": f"{admin_api.MAX_LIMIT}",
    "calls that are entered": (
        f"{audit.SUCCESSES[1]} and {audit.FAILURES[1]}; {audit.ALL_SUCCESSES[1]:,} and {audit.ALL_FAILURES[1]:,} "
        f"(then {pace(audit.SUCCESSES)} and {pace(audit.FAILURES)}; {pace(audit.ALL_SUCCESSES)} and "
        f"{pace(audit.ALL_FAILURES)})"
    ),
    "entries of the audit log": f"{audit_rows.MAX_ROWS:,}; {DEFAULTS['audit_days']} days",
    "entries of one client address": (
        f"{audit.SUCCESSES[1]}, then {pace(audit.SUCCESSES)}; {audit.FAILURES[1]}, then {pace(audit.FAILURES)}"
    ),
    "lines of the log in memory": f"{ring.MAX_LINES:,}",
    "one file": size(DEFAULTS["files_max_file"]),
    "all files of one user": size(DEFAULTS["files_per_user"]),
    "all files of one guest": f"{size(file_quotas.GUEST_BYTES)}; {size(file_quotas.GUEST_ADDRESS_BYTES)}",
    "files of one guest, in a cluster": f"{sent_files.MAX_GUEST_FILES:,}",
    "all files; of guests": size(DEFAULTS["files_max_bytes"]),
    "free room on the disk": size(DEFAULTS["min_free_bytes"]),
    "days after the last read": f"{DEFAULTS['files_days']}",
    "files that one client address reads": f"{files.READS_PER_ADDRESS}",
    "files that arrive at once": (
        f"{file_quotas.UPLOADS_PER_OWNER}; {file_quotas.UPLOADS_PER_ADDRESS}; {file_quotas.UPLOADS_AT_ONCE}"
    ),
    "the same for a user and for a client address, while more than 32": f"{file_quotas.UPLOADS_IN_A_CROWD}",
    "in a cluster: copies of files": f"{size(DEFAULTS['files_cache_bytes'])}; {file_cache.MAX_COPIES:,}",
    "in a cluster: files on their way": (
        f"{shared_files.TRANSFERS_AT_ONCE}; {shared_files.TRANSFERS_AT_ONCE} at each relay"
    ),
    "time of an upload": (
        f"{connections.BODY_TIMEOUT_S + site.PACE_BYTES / files_api.LEAST_BYTES_A_SECOND:g} s; "
        f"{site.IDLE_TIMEOUT_S} s between two pieces"
    ),
}
"""How a limit's row begins, and its default."""

MQTT_LIMITS = {
    "packet": size(packets.MAX_PACKET_BYTES),
    "in flight to a client": f"{session.MAX_IN_FLIGHT} messages",
    "waiting for a client": f"{size(session.MAX_QUEUED_BYTES)} of messages",
    "kept sessions": (
        f"in memory, for {broker.MAX_KEPT_S // 3_600} h, {broker.MAX_KEPT_SESSIONS:,} of them, "
        f"{broker.MAX_KEPT_MESSAGES:,} messages in all"
    ),
    "filters of a client": f"{subscribing.MAX_SUBSCRIPTION_FILTERS:,}",
    "client id": f"{connecting.MAX_CLIENT_ID_BYTES} bytes",
    "will": "counts for `--max-session-memory`",
    "PINGREQs and UNSUBSCRIBEs": f"{frames.MAX_CONTROL_FRAMES_PER_S} in a second",
    "packets that wait behind one": (
        f"{size(packets.MAX_PACKET_BYTES)} before the CONNACK, then {size(packet_queue.MAX_WAITING_BYTES)}"
    ),
    "ids of QoS 2": f"{publishing.MAX_RECEIVED:,}",
    "topic aliases": f"{publishing.MAX_TOPIC_ALIAS}",
    "properties of a packet": f"{packets.MAX_PROPERTIES}",
    "retained messages": f"the newest {messages.MAX_KEPT:,}, with {size(messages.MAX_KEPT_BYTES)}",
}
"""How each row of MQTT's limits in ``docs/doors.md`` begins, and how its limit does."""


class LimitsTests(SynchronousTestCase):
    """The tables of the section on limits."""

    def setUp(self) -> None:
        """Reads them."""
        text = (ROOT / "docs" / "operations.md").read_text("utf-8")
        section = text.partition("\n## Limits\n")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| (.*) \|$", section, re.MULTILINE)
        self.rows = [row for row in rows if not row.startswith(("limit |", "---"))]

    def test_each_limit_has_the_value_of_the_code(self) -> None:
        """No row is left out, and none is there twice."""
        for row in self.rows:
            with self.subTest(row=row):
                (begins,) = [begins for begins in LIMITS if row.startswith(begins)]
                self.assertEqual(row.split(" | ")[1], LIMITS[begins])
        self.assertEqual(len(self.rows), len(LIMITS))

    def test_each_row_says_why_and_what_is_read(self) -> None:
        """And names an option where there is one."""
        for row in self.rows:
            with self.subTest(row=row):
                _, _, option, reason, read = row.replace("| |", "| - |").split(" | ")
                self.assertTrue(reason.strip() and read.strip())
                for name in re.findall(r"`--([a-z-]+)`", option):
                    self.assertIn(f"| `--{name}` ", (ROOT / "docs" / "operations.md").read_text("utf-8"))

    def test_shares_are_as_large_as_the_text_says(self) -> None:
        """Four times what one session, or one user, may have."""
        self.assertEqual((account.SHARED_FACTOR, service.SHARE_FACTOR, signals.SHARE), (4, 4, 4))

    def test_limits_of_mqtt_are_those_of_the_code(self) -> None:
        """No row is left out."""
        text = (ROOT / "docs" / "doors.md").read_text("utf-8")
        table = text.partition("\n## MQTT\n")[2].partition("\n### Limits\n")[2].partition("\n\n| what differs")[0]
        rows = [tuple(row.strip("| ").split(" | ")) for row in table.strip().splitlines()[2:]]
        for (name, limit), (begins, expected) in zip(rows, MQTT_LIMITS.items(), strict=True):
            with self.subTest(name):
                self.assertEqual((name[: len(begins)], limit[: len(expected)]), (begins, expected))

    def test_numbers_of_osc_are_those_of_the_code(self) -> None:
        """In the sentences of its section."""
        text = (ROOT / "docs" / "doors.md").read_text("utf-8")
        section = " ".join(text.partition("\n## OSC\n")[2].partition("\n## ")[0].split())
        for sentence in (
            f"At most {osc.MAX_SOURCES} are remembered",
            f"one that was silent for {osc.IDLE_S / 60:g} minutes is forgotten",
            f"at most {'an hour' if osc.MAX_AHEAD_US == 3_600_000_000 else osc.MAX_AHEAD_US} ahead",
            f"{osc.MAX_PENDING:,} bundles of one source may wait",
            f"and {size(schedule.MAX_PENDING_BYTES)} of all sources",
            f"at most {osc_source.RESYNC_PACKETS / osc_source.RESYNC_INTERVAL_S:g} messages a second",
            f"`--osc-rate` values a second of one address ({DEFAULTS['osc_rate']:g})",
            f"Up to {size(packet_queue.MAX_WAITING_BYTES)} of packets wait behind it",
            f"at most {osc_packets.MAX_MESSAGES:,} messages and {osc_packets.MAX_ARGUMENTS:,} arguments and brackets",
            f"Every {osc_packets.MESSAGES_A_UNIT} messages and every {osc_packets.ARGUMENTS_A_UNIT} arguments",
        ):
            with self.subTest(sentence):
                self.assertIn(sentence, section)
