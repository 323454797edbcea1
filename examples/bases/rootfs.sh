#!/bin/sh
# Makes the root file system of the debian:bookworm-slim stand-in: Debian's required
# packages and apt, with what Docker's official slim image leaves out left out, as a
# gzip-packed tarball. It needs mmdebstrap and a Debian mirror, and no root: mmdebstrap
# takes a user namespace of its own.
#
#   rootfs.sh OUTPUT.tar.gz
#
# The same packages give the same bytes: SOURCE_DATE_EPOCH (default: the day bookworm was
# released) clamps every time stamp, and nothing of this machine gets in.
set -eu

output=${1:?usage: rootfs.sh OUTPUT.tar.gz}
mirror=${MIRROR:-http://deb.debian.org}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1686355200}
export SOURCE_DATE_EPOCH
umask 022

config=$(mktemp -d)
trap 'rm -rf "$config"' EXIT

# The three files that shape every later `apt-get install` in an image built on top. The
# first is also in force while the packages below are unpacked.
cat > "$config/dpkg" <<'END'
# An image is built anew after a crash: no fsync per file.
force-unsafe-io
# The slim variant carries no documentation and no translations, but every licence.
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/groff/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/lintian/*
path-exclude=/usr/share/locale/*
path-include=/usr/share/locale/locale.alias
path-exclude=/usr/share/man/*
END

cat > "$config/apt" <<'END'
// A layer keeps what a step leaves behind, so apt leaves as little as it can.
Acquire::GzipIndexes "true";
Acquire::Languages "none";
Apt::AutoRemove::SuggestsImportant "false";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb || true"; };
END

cat > "$config/sources" <<END
Types: deb
URIs: $mirror/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: $mirror/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END

# Services must not start while packages are installed into an image.
printf '#!/bin/sh\nexit 101\n' > "$config/policy-rc.d"

# Each path-exclude and path-include of the file above becomes one --dpkgopt; the patterns
# hold no blanks, and globbing stays off so that they reach dpkg as they are.
set -f
set -- $(sed -n 's/^path-/--dpkgopt=path-/p' "$config/dpkg")
set +f

# /usr is merged from the start (no usrmerge, which brings Perl), and the device nodes that
# mmdebstrap adds are taken out again: /dev belongs to whoever runs a container, and an
# ordinary user cannot unpack them.
mmdebstrap --quiet --variant=minbase --format=tar \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --skip=chroot/policy-rc.d \
    --aptopt='Acquire::Languages "none"' \
    "$@" \
    --customize-hook='rm "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap" "$1/etc/apt/apt.conf.d/99mmdebstrap"' \
    --customize-hook='rm "$1"/etc/apt/sources.list.d/* "$1/etc/hostname" "$1/etc/resolv.conf"' \
    --customize-hook='rm -f "$1"/var/cache/apt/*.bin "$1"/var/cache/debconf/*-old "$1"/var/lib/dpkg/*-old' \
    --customize-hook="upload $config/policy-rc.d /usr/sbin/policy-rc.d" \
    --customize-hook='chmod 755 "$1/usr/sbin/policy-rc.d"' \
    --customize-hook="upload $config/dpkg /etc/dpkg/dpkg.cfg.d/docker" \
    --customize-hook="upload $config/apt /etc/apt/apt.conf.d/docker" \
    --customize-hook="upload $config/sources /etc/apt/sources.list.d/debian.sources" \
    bookworm - - < "$config/sources" |
    tar --delete --wildcards './dev/*' |
    gzip --no-name > "$output.partial"
mv "$output.partial" "$output"
