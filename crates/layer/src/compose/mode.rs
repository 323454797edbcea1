//! What `--chmod` says.

/// A change of permission bits, octal (`755`) or symbolic (`u=rwX,go-w`), as `chmod(1)` takes it.
///
/// Where no `u`, `g`, `o` or `a` is given, all are meant: there is no umask in a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeChange {
    steps: Vec<Step>,
    is_octal: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    /// The bits of those who are meant: the rwx bits of user, group and others, and with them the
    /// set-user-id, set-group-id and sticky bits that go with them.
    who: u32,
    operation: Operation,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// These bits for everybody, of which those of `who` count; and whether `X` is among them.
    Bits { bits: u32, execute_if_any: bool },
    /// What the user, the group or others may do now: the place of their bits.
    CopyOf(u32),
}

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHERS: u32 = 0o1007;
const ALL: u32 = 0o7777;
const EXECUTE: u32 = 0o111;

impl ModeChange {
    /// Reads a mode: an octal number up to 7777, or clauses such as `u=rwX,go=rX`, `+x`, `g=u`.
    ///
    /// `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let bits = text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text)?;
            let bits = u32::from_str_radix(bits, 8).ok().filter(|bits| *bits <= ALL)?;
            let what = What::Bits { bits, execute_if_any: false };
            let steps = vec![Step { who: ALL, operation: Operation::Set, what }];
            return Some(Self { steps, is_octal: true });
        }
        let mut steps = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause.as_bytes(), &mut steps)?;
        }
        Some(Self { steps, is_octal: false })
    }

    /// Whether this is a number, which gives every file the same mode.
    pub fn is_octal(&self) -> bool {
        self.is_octal
    }

    /// The mode that comes out for something with a mode.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        self.steps.iter().fold(mode, |mode, step| step.apply(mode, is_directory))
    }
}

impl Step {
    fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let bits = match self.what {
            What::Bits { bits, execute_if_any } => {
                let may_execute = is_directory || mode & EXECUTE != 0;
                if execute_if_any && may_execute { bits | EXECUTE } else { bits }
            }
            What::CopyOf(shift) => (mode >> shift & 7) * EXECUTE,
        };
        let bits = bits & self.who;
        match self.operation {
            Operation::Add => mode | bits,
            Operation::Remove => mode & !bits,
            Operation::Set => mode & !self.who | bits,
        }
    }
}

/// Reads one clause: who, then one or more operations.
fn parse_clause(clause: &[u8], steps: &mut Vec<Step>) -> Option<()> {
    let is_operation = |byte: &u8| matches!(byte, b'+' | b'-' | b'=');
    let (who, mut rest) = clause.split_at(clause.iter().position(is_operation)?);
    let who = parse_who(who)?;
    while let [operation, after @ ..] = rest {
        let end = after.iter().position(is_operation).unwrap_or(after.len());
        let operation = match operation {
            b'+' => Operation::Add,
            b'-' => Operation::Remove,
            _ => Operation::Set,
        };
        let (what, after) = after.split_at(end);
        steps.push(Step { who, operation, what: parse_what(what)? });
        rest = after;
    }
    Some(())
}

fn parse_who(who: &[u8]) -> Option<u32> {
    if who.is_empty() {
        return Some(ALL);
    }
    who.iter().try_fold(0, |bits, byte| {
        Some(
            bits | match byte {
                b'u' => USER,
                b'g' => GROUP,
                b'o' => OTHERS,
                b'a' => ALL,
                _ => return None,
            },
        )
    })
}

fn parse_what(what: &[u8]) -> Option<What> {
    match what {
        b"u" => return Some(What::CopyOf(6)),
        b"g" => return Some(What::CopyOf(3)),
        b"o" => return Some(What::CopyOf(0)),
        _ => {}
    }
    let (mut bits, mut execute_if_any) = (0, false);
    for byte in what {
        match byte {
            b'r' => bits |= 0o444,
            b'w' => bits |= 0o222,
            b'x' => bits |= EXECUTE,
            b'X' => execute_if_any = true,
            b's' => bits |= 0o6000,
            b't' => bits |= 0o1000,
            _ => return None,
        }
    }
    Some(What::Bits { bits, execute_if_any })
}

#[cfg(test)]
mod tests {
    use super::ModeChange;

    fn apply(text: &str, mode: u32, is_directory: bool) -> u32 {
        ModeChange::parse(text).unwrap_or_else(|| panic!("{text}")).apply(mode, is_directory)
    }

    #[test]
    fn modes_come_out_as_from_chmod() {
        for (text, mode, is_directory, expected) in [
            ("755", 0o600, false, 0o755),
            ("0", 0o777, false, 0),
            ("04755", 0o600, false, 0o4755),
            ("7777", 0, true, 0o7777),
            ("+x", 0o644, false, 0o755),
            ("a+x", 0o644, false, 0o755),
            ("u+x", 0o644, false, 0o744),
            ("go-rwx", 0o777, false, 0o700),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("g=u", 0o640, false, 0o660),
            ("go=u", 0o750, true, 0o777),
            ("o=g-w", 0o670, false, 0o675),
            ("u=", 0o4755, false, 0o055),
            ("u+s,g+s,+t", 0o755, false, 0o7755),
            ("o+s", 0o755, false, 0o755),
            ("a-x+X", 0o755, false, 0o644),
            ("=r", 0o755, false, 0o444),
            ("u+rw,g-w,o=", 0o466, false, 0o640),
        ] {
            assert_eq!(apply(text, mode, is_directory), expected, "{text} of {mode:o}");
        }
    }

    #[test]
    fn other_texts_are_no_modes() {
        for text in [
            "", "10000", "64a", "888", "-1", "x", "u", "rwx", "u+q", "z+x", "u+x,", ",", "u=gr",
            "0x1", "+7", "7 ",
        ] {
            assert_eq!(ModeChange::parse(text), None, "{text}");
        }
    }
}
