# busybox:1.35-glibc: one static program under all its names.
FROM debian:bookworm-slim AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends busybox-static \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /rootfs
RUN mkdir -p bin etc home root usr/bin usr/sbin var/spool && mkdir -m 1777 tmp \
 && cp /bin/busybox bin/ \
 && for applet in $(busybox --list | grep -vx busybox); do ln -s busybox "bin/$applet"; done \
 && printf '%s\n' root:x:0:0:root:/root:/bin/sh nobody:x:65534:65534:nobody:/home:/bin/false > etc/passwd \
 && printf '%s\n' root:x:0: nobody:x:65534: > etc/group

FROM scratch
COPY --from=build /rootfs /
LABEL formwork.stand-in-for="busybox:1.35-glibc"
CMD ["sh"]
