"""Tests of clasp_relay.core.records."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Change, Param
from clasp_relay.core.state.params import ParamLimits, Params
from tests.core.world import value


class ParamTests(SynchronousTestCase):
    def test_record_stays_what_it_was(self) -> None:
        """Whoever holds one holds what was true when it took it, whatever is written later."""
        params = Params(ParamLimits())
        first = Param("/a", value(1), 1, "w", 10)
        params.apply(Change(first))
        image = params.image()
        params.apply(Change(Param("/a", value(2), 2, "w", 20)))
        self.assertEqual(image.params, [first])
        self.assertRaises(AttributeError, setattr, first, "revision", 3)
