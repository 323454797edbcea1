# gcr.io/distroless/{static,base,cc}-debian12, as root and as nonroot: Debian's packages
# unpacked, not installed. There is no shell and no package manager; what is inside can be
# read from /var/lib/dpkg/status.d.
FROM debian:bookworm-slim AS unpack
WORKDIR /debs
RUN apt-get update \
 && apt-get download \
        base-files ca-certificates gcc-12-base libc6 libgcc-s1 libgomp1 libssl3 libstdc++6 \
        media-types netbase tzdata \
 && rm -rf /var/lib/apt/lists/*
RUN unpack() { \
        root=/rootfs/$1; shift; \
        mkdir -p "$root/var/lib/dpkg/status.d"; \
        for package; do \
            dpkg-deb --extract "$package"_*.deb "$root" \
         && dpkg-deb --field "$package"_*.deb > "$root/var/lib/dpkg/status.d/$package" || exit; \
        done; \
        rm -rf "$root/usr/share/lintian" "$root/usr/share/man" "$root/usr/share/bug"; \
        find "$root/usr/share/doc" -type f ! -name copyright -delete; \
    } \
 && unpack static base-files media-types netbase tzdata \
 && unpack base libc6 libssl3 \
 && unpack cc gcc-12-base libgcc-s1 libgomp1 libstdc++6
WORKDIR /rootfs/static
RUN printf '%s\n' \
        root:x:0:0:root:/root:/sbin/nologin \
        nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin \
        nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin > etc/passwd \
 && printf '%s\n' root:x:0: nobody:x:65534: tty:x:5: staff:x:50: nonroot:x:65532: > etc/group \
 && echo 'hosts: files dns' > etc/nsswitch.conf \
 && mkdir -p etc/ssl/certs && mkdir -p -m 700 home/nonroot root && chown 65532:65532 home/nonroot \
 && mkdir -p tmp && chmod 1777 tmp \
 && dpkg-deb --fsys-tarfile /debs/ca-certificates_*.deb \
  | tar --extract --to-stdout --wildcards './usr/share/ca-certificates/mozilla/*.crt' \
  > etc/ssl/certs/ca-certificates.crt \
 && dpkg-deb --field /debs/ca-certificates_*.deb > var/lib/dpkg/status.d/ca-certificates

FROM scratch AS static
COPY --from=unpack /rootfs/static /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
LABEL formwork.stand-in-for="gcr.io/distroless/static-debian12"
USER 0
WORKDIR /

FROM static AS static-nonroot
USER 65532
WORKDIR /home/nonroot

FROM static AS base
COPY --from=unpack /rootfs/base /
LABEL formwork.stand-in-for="gcr.io/distroless/base-debian12"

FROM base AS base-nonroot
USER 65532
WORKDIR /home/nonroot

FROM base AS cc
COPY --from=unpack /rootfs/cc /
LABEL formwork.stand-in-for="gcr.io/distroless/cc-debian12"

FROM cc AS cc-nonroot
USER 65532
WORKDIR /home/nonroot
