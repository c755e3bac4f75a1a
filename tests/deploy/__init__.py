"""Tests of what runs the relay for real: image, Compose files, Caddy, scripts, systemd."""
