"""Web Push: tells browsers of direct messages, mentions and calls while no page of the chat is open and visible.

``chat`` decides who is told of what, ``subscriptions`` knows the browsers, ``encryption`` makes what only one browser
can read (RFC 8291) and proves who sends it (RFC 8292), ``sender`` brings it to the push service (RFC 8030), and
``destinations`` sees to it that a subscription cannot make the relay talk to anything else.
"""
