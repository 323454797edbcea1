//! How fast the parser is, and whether it stays so: megabytes a second for texts of several kinds,
//! and how many times longer four times the text takes (4 where the time is in proportion).
//!
//! `cargo xtask bench parser`, or `cargo bench -p formwork-dockerfile`. Asserts nothing, since
//! machines differ; arguments are parts of the names of kinds.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use formwork_diagnostics::SourceFile;
use formwork_dockerfile::{IgnoreFile, parse};

/// The one that formwork has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The lengths of texts: a long line, and four of them.
const LENGTHS: [usize; 2] = [64 << 10, 256 << 10];
/// How often each text is parsed.
const ROUNDS: usize = 15;

/// What is usual, and what is usual in nobody's files: a name, a beginning, what is repeated until
/// the text is long enough, and an end.
const KINDS: [(&str, &str, &str, &str); 24] = [
    ("instructions", "FROM a\n", "RUN apt-get install -y curl && rm -rf /var/lib/apt\n", ""),
    ("everything", "FROM a\n", EVERYTHING, ""),
    ("stages", "", "FROM a AS b\nCOPY --from=b c d\n", ""),
    ("one long line", "FROM a\nRUN ", "echo something; ", "\n"),
    ("continued lines", "FROM a\nRUN true", " && echo something \\\n", "\n"),
    ("comments in a line", "FROM a\nRUN a \\\n", "# a comment of some length\n", "b\n"),
    ("empty lines in a line", "FROM a\nRUN a \\\n", "\n", "b\n"),
    ("comments", "FROM a\n", "# a comment of some length\n", ""),
    ("pairs", "FROM a\nENV", " A=\"some value\" B=c\\ d", "\n"),
    ("variables", "FROM a\nLABEL a=\"", "$A${B}${C:-d}", "\"\n"),
    ("nested variables", "FROM a\nLABEL a=", "${A:-", "\n"),
    ("sources", "FROM a\nCOPY", " source/file", " /d/\n"),
    ("a list", "FROM a\nCMD [\"a\"", ", \"b\\u00e9\\n\"", "]\n"),
    ("flags", "FROM a\nCOPY", " --exclude=pattern", " a b\n"),
    ("mounts", "FROM a\nRUN", " --mount=type=cache,target=/a", " true\n"),
    ("keys of a mount", "FROM a\nRUN --mount=type=bind", ",target=/a", " true\n"),
    ("a heredoc", "FROM a\nCOPY <<E /d\n", "a line of text $A\n", "E\n"),
    ("heredocs", "FROM a\n", "COPY <<E /d\na line of text\nE\n", ""),
    ("heredocs of a line", "FROM a\nCOPY", " <<E", " /d\n"),
    ("heredocs without an end", "FROM a\n", "COPY <<E /d\n", ""),
    ("quotes", "FROM a\nENV A=", "\"'\"'\\\"", "\n"),
    ("what nobody knows", "FROM a\n", "INSTALL curl\n", ""),
    ("triggers", "FROM a\n", "ONBUILD RUN make all\n", ""),
    ("ports", "FROM a\nEXPOSE", " 80/tcp $P", "\n"),
];

const EVERYTHING: &str = "\
FROM --platform=$BUILDPLATFORM golang:1.22 AS build
ARG VERSION=1 COMMIT
ENV PATH=\"/usr/local/go/bin:$PATH\" CGO_ENABLED=0
WORKDIR /src
COPY --link --chown=1000:1000 go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod,sharing=locked \\
    # fetch
    go mod download && \\
    go build -ldflags \"-X main.version=$VERSION\" ./...
COPY <<EOF /etc/config
version = ${VERSION:-none}
EOF
LABEL org.opencontainers.image.source=\"https://example.org\" stage=build
EXPOSE 80 443/tcp
HEALTHCHECK --interval=30s CMD [\"/bin/check\", \"--fast\"]
ENTRYPOINT [\"/app\"]
";

fn main() {
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    println!("{:<32} {:>8} {:>8} {:>8}", "kind", "KiB", "MB/s", "by four");
    let dockerfile = |text: &str| drop(black_box(parse(SourceFile::new("Dockerfile", text))));
    for (name, head, piece, tail) in KINDS {
        if filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())) {
            let text = |length| format!("{head}{}{tail}", repeated(piece, length));
            report(name, &LENGTHS.map(text), &dockerfile);
        }
    }
    if filters.is_empty() {
        let ignore = |text: &str| drop(black_box(IgnoreFile::parse(SourceFile::new("i", text))));
        let text = |length| repeated("**/target/*.[ch]\n!keep.c\n", length);
        report("an ignore file", &LENGTHS.map(text), &ignore);
        for (name, line) in [("usual", KINDS[0].2), ("shortest", "RUN true\n")] {
            let text = |count| format!("FROM a\n{}", line.repeat(count));
            let name = format!("100,000 {name} instructions");
            report(&name, &[100_000, 400_000].map(text), &dockerfile);
        }
    }
}

/// A piece as often as it takes.
fn repeated(piece: &str, length: usize) -> String {
    piece.repeat((length / piece.len()).max(1))
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn report(name: &str, [short, long]: &[String; 2], work: &dyn Fn(&str)) {
    let [fast, slow] = [short, long].map(|text| fastest(text, work).as_secs_f64().max(1e-9));
    let length = short.len() as f64;
    let (speed, factor) = (length / 1e6 / fast, slow / fast);
    println!("{name:<32} {:>8.0} {speed:>8.0} {factor:>8.1}", length / 1024.0);
}

/// The fastest of some rounds, which says most where others use the machine, too.
fn fastest(text: &str, work: &dyn Fn(&str)) -> Duration {
    let round = |_| {
        let start = Instant::now();
        work(text);
        start.elapsed()
    };
    (0..ROUNDS).map(round).min().unwrap_or_default()
}
