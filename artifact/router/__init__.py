"""The reverse proxy in front of servers. It imports nothing of ours, so that it starts at once and stays small."""
