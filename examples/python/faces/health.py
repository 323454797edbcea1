"""Asks the running service whether it is well: the image's HEALTHCHECK (`python -m faces.health`)."""

import os
from urllib.request import urlopen

# An answer other than 2xx and no answer at all are both exceptions, so exit status 1.
urlopen(f"http://127.0.0.1:{os.environ.get('PORT', '8080')}/healthz", timeout=2)
