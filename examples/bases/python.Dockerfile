# python:3.11-bookworm and python:3.11-slim-bookworm: Debian's Python at the usual address.
# The real images own their Python, so `pip install` outside a virtual environment is
# allowed there; Debian's marker against it goes.
FROM buildpack-deps:bookworm AS full
ENV LANG=C.UTF-8
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
        python3 python3-dev python3-pip python3-setuptools python3-venv python3-wheel tk-dev uuid-dev \
 && rm -rf /var/lib/apt/lists/* /usr/lib/python3.11/EXTERNALLY-MANAGED \
 && ln -s /usr/bin/python3 /usr/local/bin/python \
 && ln -s /usr/bin/python3 /usr/bin/python3.11 /usr/bin/pip /usr/bin/pip3 /usr/local/bin/
LABEL formwork.stand-in-for="python:3.11-bookworm"
CMD ["python3"]

FROM debian:bookworm-slim AS slim
ENV LANG=C.UTF-8
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
        ca-certificates netbase tzdata \
        python3 python3-pip python3-setuptools python3-venv python3-wheel \
 && rm -rf /var/lib/apt/lists/* /usr/lib/python3.11/EXTERNALLY-MANAGED \
 && ln -s /usr/bin/python3 /usr/local/bin/python \
 && ln -s /usr/bin/python3 /usr/bin/python3.11 /usr/bin/pip /usr/bin/pip3 /usr/local/bin/
LABEL formwork.stand-in-for="python:3.11-slim-bookworm"
CMD ["python3"]
