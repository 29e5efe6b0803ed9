"""One suite for any policy: cells that cover what users have, a scorecard of each policy, and who is better where."""
