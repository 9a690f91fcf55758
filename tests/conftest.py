"""What all tests share."""

from hypothesis import settings

# How long an example takes depends on who else is at work on the machine; that is no test's business.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")
