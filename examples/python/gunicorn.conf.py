"""How Gunicorn runs the service; it reads this file from the working directory."""

import os

bind = f"0.0.0.0:{os.environ.get('PORT', '8080')}"

# The gallery lives in the process, so there is one process, with threads.
workers = 1
threads = 8

# Workers show that they live by touching a file. On a container's overlay that can stall.
worker_tmp_dir = "/dev/shm"

# On SIGTERM, how long requests that are under way may take, in seconds. Browsers open
# connections in advance, and Gunicorn waits for those, too; so no longer than needed.
graceful_timeout = 1

# No way in for gunicornc, which nobody in an image would run.
control_socket_disable = True
