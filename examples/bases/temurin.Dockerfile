# eclipse-temurin:17-jdk. The real one is OpenJDK on Ubuntu, this is OpenJDK on Debian; the
# link gives it Temurin's address. (The package's alternatives want a directory for manual
# pages that slim images do not have.)
FROM debian:bookworm-slim
ENV JAVA_HOME=/opt/java/openjdk \
    PATH=/opt/java/openjdk/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=en_US.UTF-8 LANGUAGE=en_US:en LC_ALL=en_US.UTF-8
RUN mkdir -p /opt/java /usr/share/man/man1 \
 && apt-get update \
 && apt-get install -y --no-install-recommends \
        binutils ca-certificates curl fontconfig gnupg locales p11-kit tzdata wget \
        openjdk-17-jdk-headless \
 && rm -rf /var/lib/apt/lists/* \
 && localedef -i en_US -f UTF-8 en_US.UTF-8 \
 && ln -s "/usr/lib/jvm/java-17-openjdk-$(dpkg --print-architecture)" "$JAVA_HOME"
LABEL formwork.stand-in-for="eclipse-temurin:17-jdk"
CMD ["jshell"]
