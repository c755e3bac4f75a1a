"""The HTTP side: the auth API, params, files, webhooks, the console's API, static files, health and metrics."""
