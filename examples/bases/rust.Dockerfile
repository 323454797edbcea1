# rust:1.96-bookworm: the compiler that Debian keeps current for its web browsers.
FROM buildpack-deps:bookworm
ENV CARGO_HOME=/usr/local/cargo \
    PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN apt-get update \
 && apt-get install -y --no-install-recommends cargo-web rustc-web \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir -p "$CARGO_HOME/bin" \
 && ln -s /usr/bin/cargo /usr/bin/rustc /usr/bin/rustdoc "$CARGO_HOME/bin/"
LABEL formwork.stand-in-for="rust:1.96-bookworm"
CMD ["bash"]
