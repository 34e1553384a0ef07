"""What all tests share: hypothesis tries the same examples each time, and never measures how long they take."""

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("same")
