"""TLS and AUTH for mail servers that know neither: small programs joined by exec."""
