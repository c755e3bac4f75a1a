"""Tests of the policy engine and of the policies that come with the relay."""
