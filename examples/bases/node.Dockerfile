# node:18-bookworm and node:18-bookworm-slim: Debian's node at the usual address, on a base
# with compilers and on one without. Debian's npm is made of 300 packages, webpack and eslint
# among them, so it only fetches the npm of one piece that the real images carry.
FROM debian:bookworm-slim AS npm
RUN apt-get update \
 && apt-get install -y --no-install-recommends npm \
 && rm -rf /var/lib/apt/lists/*
RUN npm install --global --prefix /opt/npm npm@10.8.2

FROM buildpack-deps:bookworm AS full
RUN groupadd --gid 1000 node && useradd --uid 1000 --gid node --shell /bin/bash --create-home node
RUN apt-get update \
 && apt-get install -y --no-install-recommends nodejs python3 \
 && rm -rf /var/lib/apt/lists/* \
 && ln -s /usr/bin/node /usr/local/bin/node
COPY --from=npm /opt/npm /usr/local
LABEL formwork.stand-in-for="node:18-bookworm"
CMD ["node"]

FROM debian:bookworm-slim AS slim
RUN groupadd --gid 1000 node && useradd --uid 1000 --gid node --shell /bin/bash --create-home node
RUN apt-get update \
 && apt-get install -y --no-install-recommends nodejs \
 && rm -rf /var/lib/apt/lists/* \
 && ln -s /usr/bin/node /usr/local/bin/node
COPY --from=npm /opt/npm /usr/local
LABEL formwork.stand-in-for="node:18-bookworm-slim"
CMD ["node"]
