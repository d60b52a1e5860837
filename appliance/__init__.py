"""What makes an appliance of the programs: settings, accounts, service trees, health."""
