"""What all tests share: hypothesis draws the same examples everywhere, and slow machines get no deadline."""

from hypothesis import settings

settings.register_profile("niyama", deadline=None, derandomize=True, database=None)
settings.load_profile("niyama")
