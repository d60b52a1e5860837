"""acceptserver: listen, limit, accept, and fork one process per connection."""
