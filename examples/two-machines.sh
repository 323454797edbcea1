#!/bin/sh
# Two CI machines that begin with nothing share what they build through a registry: the steps
# (--cache-to, --cache-from) and the directories of RUN --mount=type=cache (--cache-mounts-to,
# --cache-mounts-from). Prints what each of them built again, and why.
#
#     examples/two-machines.sh [REPOSITORY]
#
# REPOSITORY is one that may be pushed to; without it, Debian's docker-registry serves one on
# loopback. Needs busybox-static; $FORMWORK names the program if it is not on PATH.
set -eu
# What is the same gets the same digest, whoever builds it.
export SOURCE_DATE_EPOCH=1700000000

formwork=${FORMWORK:-formwork}
work=$(mktemp -d)
registry=
clean() {
    [ -z "$registry" ] || kill "$registry"
    # Layers of an ordinary user have files of subordinate ids, which formwork can remove.
    for machine in one two; do
        [ ! -d "$work/$machine" ] || "$formwork" --root "$work/$machine" prune --all --force >/dev/null || true
    done
    chmod -R u+rwX "$work" 2>/dev/null || true
    rm -rf "$work" 2>/dev/null || true
}
trap clean EXIT

# A registry, unless there is one.
if [ $# -gt 0 ]; then
    repository=$1
else
    port=$((20000 + $$ % 20000))
    cat > "$work/registry.yml" <<END
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: '127.0.0.1:$port'}
END
    docker-registry serve "$work/registry.yml" > "$work/registry.log" 2>&1 &
    registry=$!
    repository=127.0.0.1:$port/team/app
    tries=0
    until busybox nc -z 127.0.0.1 "$port" 2>/dev/null || [ $tries -ge 100 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
fi

# A project: sources, a step that installs dependencies, one that compiles, one that tests.
mkdir -p "$work/project/src" "$work/base"
cd "$work/project"
echo 'libfoo 1.2' > deps.txt
echo 'hello' > src/main
echo 'world' > src/lib
cat > install <<'END'
while read -r name version; do
    if [ -e "/packages/$name-$version" ]; then
        echo "$name $version: already here"
    else
        echo "$name $version: downloading"
        echo "$name" > "/packages/$name-$version"
    fi
done < deps.txt
cp -r /packages installed
END
cat > Dockerfile <<'END'
FROM base AS build
WORKDIR /app
COPY deps.txt install ./
RUN --mount=type=cache,id=packages,target=/packages sh install
COPY src src
RUN cat src/* installed/* > program
FROM build AS test
RUN grep -q hello program && echo 'tests pass'
FROM base
COPY --from=build /app/program /usr/bin/program
END
cp "$(command -v busybox)" "$work/base/busybox"
cat > "$work/base/Dockerfile" <<'END'
FROM scratch
COPY busybox /bin/
RUN ["/bin/busybox", "--install", "-s", "/bin"]
END

# What a machine of the CI does. Each has a store of its own, which begins with nothing.
ci() {
    machine=$1
    shift
    [ -d "$work/$machine" ] || "$formwork" --root "$work/$machine" build -q -t base "$work/base" > /dev/null
    echo
    echo "== machine $machine: $* =="
    "$formwork" --root "$work/$machine" build --progress=plain --explain \
        --cache-from "type=registry,ref=$repository:cache" \
        --cache-to "type=registry,ref=$repository:cache,mode=max" \
        --cache-mounts-from "type=registry,ref=$repository:cache" \
        --cache-mounts-to "type=registry,ref=$repository:cache" \
        -t app . > "$work/id" 2> "$work/log" || { cat "$work/log"; exit 1; }
    awk -v RS= 'END { print }' "$work/log"
    sed -nE 's/^#[0-9]+ [0-9.]+ (.*(already here|downloading))$/    the step says: \1/p' "$work/log"
    echo "the image is $(cut -c1-19 "$work/id")"
}

ci one 'builds the project, of which nobody has built anything'
first=$(cat "$work/id")
ci two 'builds the same, and runs nothing'
[ "$first" = "$(cat "$work/id")" ] || { echo 'the images differ'; exit 1; }
echo 'HELLO hello' > src/main
ci two 'builds a changed source: dependencies stay'
ci one 'builds that, too, and runs nothing'
echo 'libbar 2.0' >> deps.txt
mv "$work/one" "$work/gone" && "$formwork" --root "$work/gone" prune --all --force > /dev/null
ci one 'is a new machine, with one more dependency: the cache mount has the others'
echo
echo 'done'
