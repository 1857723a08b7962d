"""What a client hears: its request, its session, and the lines of the sync protocol."""
