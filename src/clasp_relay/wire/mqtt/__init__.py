"""MQTT 3.1.1 and 5: bytes to packets and back, topics and addresses, payloads and values."""
