//! Texts from texts: cut, repeated, mixed, with pieces of the language put in.

/// Pieces that mean something somewhere.
const PIECES: [&str; 97] = [
    "FROM a\n",
    "FROM scratch AS b\n",
    "RUN ",
    "COPY ",
    "ADD ",
    "ENV ",
    "ARG ",
    "CMD ",
    "LABEL ",
    "EXPOSE ",
    "VOLUME ",
    "USER ",
    "WORKDIR ",
    "ONBUILD ",
    "HEALTHCHECK ",
    "SHELL ",
    "STOPSIGNAL ",
    "ENTRYPOINT ",
    "MAINTAINER ",
    "--mount=",
    "--mount=type=bind,",
    "type=cache,",
    "type=secret,",
    "target=/x,",
    "source=",
    "from=",
    "id=",
    "mode=0755,",
    "uid=",
    "sharing=locked",
    "size=1g",
    "--from=",
    "--chown=",
    "--chmod=",
    "--link",
    "--parents",
    "--exclude=",
    "--checksum=sha256:",
    "--platform=",
    "--network=",
    "--security=",
    "--interval=",
    "--",
    "<<EOF",
    "<<-EOF",
    "<<'E'",
    "<<\"E\"",
    "3<<",
    "EOF\n",
    "E\n",
    "\\\n",
    "\\",
    "`",
    "\n",
    "\r\n",
    "\t",
    " ",
    "# ",
    "# escape=`\n",
    "# check=skip=",
    "# syntax=",
    "#!",
    "\"",
    "'",
    "[\"",
    "\", \"",
    "\"]",
    "[",
    "]",
    "{",
    "}",
    "$",
    "${",
    ":-",
    ":+",
    ":?",
    "##",
    "%%",
    "//",
    "/",
    "*",
    "**",
    "?",
    "[^a-z]",
    "!",
    "..",
    "/./",
    "=",
    ",",
    "\0",
    "\u{feff}",
    "é",
    "☺",
    "\u{a0}",
    "http://a/b",
    "git@a:b.git#c:d",
    "99999999999999999999",
];

/// Makes inputs, always the same from the same seed and corpus.
#[derive(Debug)]
pub(crate) struct Mutator {
    state: u64,
    corpus: Vec<String>,
    longest: usize,
}

impl Mutator {
    pub(crate) fn new(seed: u64, corpus: Vec<String>, longest: usize) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), corpus, longest }
    }

    /// Mixes a text into later ones.
    pub(crate) fn keep(&mut self, text: &str) {
        self.corpus.push(text.to_owned());
    }

    /// Another input.
    pub(crate) fn next(&mut self) -> String {
        let mut text = self.any_text().into_bytes();
        for _ in 0..=self.below(8) {
            self.mutate(&mut text);
        }
        text.truncate(self.longest);
        String::from_utf8_lossy(&text).into_owned()
    }

    fn mutate(&mut self, text: &mut Vec<u8>) {
        let (start, end) = self.range(text.len());
        match self.below(9) {
            0 => drop(text.drain(start..end)),
            1 | 2 => {
                let piece = PIECES[self.below(PIECES.len())];
                drop(text.splice(start..start, piece.bytes()));
            }
            3 => {
                let piece = PIECES[self.below(PIECES.len())];
                drop(text.splice(start..end, piece.bytes()));
            }
            4 => {
                let times = 1 << self.below(9);
                let piece = text[start..end].repeat(times);
                let piece = piece.into_iter().take(self.longest);
                drop(text.splice(start..start, piece));
            }
            5 => {
                let piece = PIECES[self.below(PIECES.len())].repeat(1 << self.below(10));
                drop(text.splice(start..start, piece.bytes().take(self.longest)));
            }
            6 => {
                let other = self.any_text().into_bytes();
                let (from, to) = self.range(other.len());
                drop(text.splice(start..end, other[from..to].iter().copied()));
            }
            7 => {
                let byte = u8::try_from(self.below(256)).unwrap_or(0);
                drop(text.splice(start..start, [byte]));
            }
            _ => {
                if let Some(byte) = text.get_mut(start) {
                    *byte ^= 1 << (self.state % 8);
                }
            }
        }
    }

    fn any_text(&mut self) -> String {
        let number = self.below(self.corpus.len());
        self.corpus[number].clone()
    }

    /// Some part of a text, more often a short one.
    fn range(&mut self, length: usize) -> (usize, usize) {
        let start = self.below(length + 1);
        let most = (length - start).min(1 << self.below(10));
        (start, start + self.below(most + 1))
    }

    /// A number below a limit, by splitmix64.
    fn below(&mut self, limit: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit.max(1) as u64).unwrap_or(0)
    }
}
