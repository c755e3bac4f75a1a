"""Web Push: tells browsers of direct messages, mentions and calls while no page of the chat is open and visible.

``chat`` decides who is told of what, ``subscriptions`` has the browsers, ``encryption`` encrypts each message for one
browser (RFC 8291) and signs the request (RFC 8292), ``sender`` posts it to the push service (RFC 8030), and
``destinations`` allows requests to public hosts only, since a subscription names any URL.
"""
