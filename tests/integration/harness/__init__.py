"""What the integration tests share: a running appliance, real clients, messages, patience."""
