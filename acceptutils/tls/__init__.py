"""UCSPI-TLS, the engine's side: the key, the handshake and the tunnel."""
