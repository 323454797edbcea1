# golang:1.19-bookworm. Debian's Go stands in /usr/lib; the link gives it the usual address.
FROM buildpack-deps:bookworm-scm
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
        g++ gcc libc6-dev make pkg-config golang-1.19-go \
 && rm -rf /var/lib/apt/lists/* \
 && ln -s /usr/lib/go-1.19 /usr/local/go
ENV GOPATH=/go \
    PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN mkdir -p "$GOPATH/src" "$GOPATH/bin" && chmod -R 1777 "$GOPATH"
WORKDIR /go
LABEL formwork.stand-in-for="golang:1.19-bookworm"
CMD ["bash"]
