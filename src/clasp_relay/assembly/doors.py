"""Makes the doors that the settings turn on; ``service`` passes them to the relay's service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clasp_relay.access.addresses import is_in_networks
from clasp_relay.access.permissions import Bearer
from clasp_relay.access.policy.scopes import Scopes
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.session.sessions import ANYBODY
from clasp_relay.doors.announce import Announcement
from clasp_relay.doors.door import Door
from clasp_relay.doors.mqtt.broker import Broker, SignIn
from clasp_relay.doors.mqtt.claims import Claims
from clasp_relay.doors.mqtt.door import MqttDoor, MqttOverWebSocket
from clasp_relay.doors.mqtt.publishing import MqttOptions
from clasp_relay.doors.osc import OscDoor, OscOptions, Target
from clasp_relay.doors.tcp import TcpDoor
from clasp_relay.errors import StartError, cause_text
from clasp_relay.logs.relay_log import RelayLog
from clasp_relay.net.listening import TcpPlace
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.rules.rule_door import RuleDoor
from clasp_relay.setting_kinds import split_target
from clasp_relay.settings import Settings

__all__ = ["make_doors"]

RULES_SUBJECT = "clasp.rules"
ADMIN_SCOPES = ("admin:/**",)


def make_doors(
    settings: Settings,
    reactor: Any,
    relay: Relay,
    gate: ClaspFactory,
    log: RelayLog,
    sign_in: SignIn | None = None,
    claims: Claims | None = None,
) -> Sequence[Door]:
    """Returns the doors that the settings turn on, not open yet.

    Args:
        settings: the settings.
        reactor: accepts the connections.
        relay: the core.
        gate: admits connections and passes on what they send.
        log: logs what doors refuse.
        sign_in: returns the identity of a name and a password; None where there are no accounts.
        claims: claims the names of MQTT clients in a cluster; None for a relay that is alone.
    """

    def place(port: int | None) -> TcpPlace | None:
        return None if port is None else TcpPlace(settings.host, port, None, settings.share_port)

    doors: list[Door] = []
    tcp = place(settings.tcp_port)
    if tcp is not None:
        doors.append(TcpDoor(reactor, tcp, gate))
    mqtt = (place(settings.mqtt_port), place(settings.mqtts_port))
    if mqtt != (None, None):
        options = MqttOptions(namespace=settings.mqtt_namespace, publish_sets=settings.mqtt_publish == "set")
        broker = Broker(relay, gate, options, lambda host, why: log.door_refused("MQTT", host, why), sign_in, claims)
        gate.others["mqtt"] = (MqttOverWebSocket(broker), broker.publisher.codec)
        doors.append(MqttDoor(reactor, *mqtt, broker))
    osc = (place(settings.osc_port), place(settings.osc_tcp_port))
    if osc != (None, None):
        doors.append(OscDoor(reactor, *osc, relay, gate, lambda: _osc_options(settings), log.door_refused))
    if settings.rules is not None:
        rules = RuleDoor(
            reactor,
            None if settings.cluster else relay,
            settings.rules,
            lambda scopes: _rules_identity(settings, scopes),
            log.rule_left_out,
        )
        doors.append(rules)
    if settings.announce:
        has_accounts = not settings.is_open_mode
        doors.append(Announcement(reactor, settings.name, settings.host, has_accounts=has_accounts))
    return doors


def _rules_identity(settings: Settings, scopes: tuple[str, ...] | None) -> Identity:
    """Returns the identity of rules: with all rights, unless their file has scopes.

    Raises:
        ValueError: a scope is not valid.
    """
    granted = Scopes.parse(ADMIN_SCOPES if scopes is None else scopes)
    return ANYBODY if settings.is_open_mode else Bearer(RULES_SUBJECT, scopes=granted)


def _osc_options(settings: Settings) -> OscOptions:
    """Returns the options of the OSC door.

    Raises:
        StartError: the token's file cannot be read.
    """
    token = ""
    if settings.osc_token is not None and not settings.is_open_mode:
        try:
            token = settings.osc_token.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StartError(f"--osc-token: {cause_text(error)}") from error
        if not token:
            raise StartError(f"--osc-token: {settings.osc_token} is empty; put a token into it")
    return OscOptions(
        namespace=settings.osc_namespace,
        allows=lambda host: is_in_networks(host, settings.osc_allow),
        token=token,
        targets=[Target(*found) for found in map(split_target, settings.osc_targets) if found is not None],
        rate=settings.osc_rate,
    )
