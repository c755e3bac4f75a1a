"""Tickets for URLs: used once, soon, and bounded."""

import itertools

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access import tickets
from clasp_relay.access.tickets import MAX_TICKETS_PER_TOKEN, TICKET_LIFE_S, Given, Tickets


class TicketsTests(SynchronousTestCase):
    """With a clock that is moved by hand."""

    def setUp(self) -> None:
        """No tickets."""
        self.now_s = 100.0
        numbers = itertools.count()
        self.tickets = Tickets(lambda: self.now_s, lambda size: f"{next(numbers):0{2 * size}x}")

    def test_ticket_stands_for_its_token_once(self) -> None:
        """A second use and an unknown one get nothing."""
        ticket = self.tickets.issue("token", "192.0.2.1")
        self.assertRegex(ticket, "^cpst_[0-9a-f]{32}$")
        self.assertEqual([self.tickets.take(ticket), self.tickets.take(ticket)], ["token", None])
        self.assertEqual((self.tickets.take("cpst_x"), len(self.tickets)), (None, 0))

    def test_ticket_ends_after_its_life(self) -> None:
        """And takes no room any more, whether it was used or not."""
        old = self.tickets.issue("token", "192.0.2.1")
        self.now_s += TICKET_LIFE_S / 2
        young = self.tickets.issue("token", "192.0.2.1")
        self.now_s += TICKET_LIFE_S / 2
        self.assertEqual((self.tickets.take(old), len(self.tickets)), (None, 1))
        self.assertEqual(self.tickets.take(young), "token")

    def test_tickets_of_a_token_are_bounded(self) -> None:
        """Its oldest one goes."""
        own = [self.tickets.issue("token", "192.0.2.1") for _ in range(MAX_TICKETS_PER_TOKEN + 1)]
        self.assertEqual([self.tickets.take(own[0]), self.tickets.take(own[1])], [None, "token"])

    def test_who_asks_for_many_takes_nobody_elses_place(self) -> None:
        """However many tokens a client address has: where all are too many, its own oldest one goes."""
        self.patch(tickets, "MAX_TICKETS", 20)
        mine = self.tickets.issue("mine", "192.0.2.2")
        many = [self.tickets.issue(f"guest{number}", "192.0.2.1") for number in range(19)]
        late = self.tickets.issue("late", "192.0.2.3")
        self.assertEqual(len(self.tickets), 20)
        found = [self.tickets.take(ticket) for ticket in (mine, late, *many[:2])]
        self.assertEqual(found, ["mine", "late", None, "guest1"])

    def test_other_relays_take_what_they_are_told_of_once(self) -> None:
        """Nobody is told the token: only the ticket opens what is told of it."""
        numbers = itertools.count(100)
        other = Tickets(lambda: self.now_s, lambda size: f"{next(numbers):0{2 * size}x}")
        self.tickets.when_given, other.when_ended = other.learn, self.tickets.forget
        given: list[Given] = []
        ticket = self.tickets.issue("cpsk_token", "192.0.2.1")
        self.tickets.when_given = given.append
        self.tickets.issue("cpsk_token", "192.0.2.1")
        self.assertNotIn(b"token", b"".join(given[0][:3]))
        self.assertEqual((self.tickets.knows(ticket), other.knows(ticket)), (True, True))
        self.assertEqual((other.take(ticket), self.tickets.take(ticket)), ("cpsk_token", None))
        other.forget(b"unknown")
        self.assertEqual((len(self.tickets), len(other)), (1, 0))
