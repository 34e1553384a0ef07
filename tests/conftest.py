"""What all tests share: hypothesis tries the same examples each time, and never times them."""

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("same")
