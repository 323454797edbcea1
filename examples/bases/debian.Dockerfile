# debian:bookworm-slim. The context is a directory with the rootfs.tar.gz that rootfs.sh made.
FROM scratch
ADD rootfs.tar.gz /
LABEL formwork.stand-in-for="debian:bookworm-slim"
CMD ["bash"]
