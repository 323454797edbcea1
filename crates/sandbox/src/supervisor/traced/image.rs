//! What the starter does to become a program: a list of system calls, and a stack.

use std::ffi::CString;

use rustix::io::{Errno, Result};

use super::program::{Elf, Plan};
use crate::sys::notify;
use crate::sys::trace::{self, Argument};

/// Where the starter is, its list, and the name of the program behind that.
const CODE: u64 = 0x5000_0000_0000;
pub(super) const LIST: u64 = CODE + 0x1000;
const NAME: u64 = LIST + 0x3000;
const LIST_SIZE: u64 = 0x4000;
const PAGE: u64 = 4096;
/// What the starter takes for the descriptor that it has opened.
const OPENED: u64 = (-7777_i64) as u64;
/// Keeps the result of a call as that.
const KEEPS: u64 = 1 << 32;
const FILL: u64 = (-2_i64) as u64;
const GO: u64 = (-1_i64) as u64;
/// What a starter gives for a directory to open its program and its interpreter.
pub(super) const PROGRAM: i32 = -8001;
pub(super) const INTERPRETER: i32 = -8002;
/// The most bytes of arguments' and variables' addresses.
const LONGEST_BLOCK: usize = 16 << 20;

/// The starter as a file: headers, code, and room for the list.
pub(crate) fn starter() -> Vec<u8> {
    let code = trace::starter();
    let entry = CODE + 64 + 2 * 56;
    let mut file = Vec::with_capacity(2 * PAGE as usize);
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0");
    file.extend([entry, 64, 0].map(u64::to_le_bytes).concat());
    file.extend(b"\0\0\0\0\x40\0\x38\0\x02\0\0\0\0\0\0\0");
    // Code is read and executed, the list read and written.
    for (flags, offset, address, in_file, in_memory) in
        [(5_u32, 0, CODE, PAGE, PAGE), (6, PAGE, LIST, PAGE, LIST_SIZE)]
    {
        file.extend([1_u32, flags].map(u32::to_le_bytes).concat());
        let words: [u64; 6] = [offset, address, address, in_file, in_memory, PAGE];
        file.extend(words.map(u64::to_le_bytes).concat());
    }
    file.extend(code);
    file.resize(2 * PAGE as usize, 0);
    file
}

/// Writes into the memory of a process that has become a starter what makes it a program.
pub(super) fn fill(thread: u32, stack: u64, plan: &Plan) -> Result<()> {
    let random = random()?;
    let program = Placed::new(&plan.program, 0x5555_5555_4000 + ((random[0] & 0xf_ffff) << 12));
    let interpreter = plan
        .interpreter
        .as_ref()
        .map(|elf| Placed::new(elf, 0x7e80_0000_0000 + ((random[1] & 0x3f_ffff) << 12)));
    let stack = Stack::read(thread, stack)?.filled(plan, &program, interpreter.as_ref());
    let mut list = List::default();
    list.map(&program, PROGRAM);
    if let Some(interpreter) = &interpreter {
        list.map(interpreter, INTERPRETER);
    }
    if plan.program.executes_stack {
        /// All rights, and for all that the stack will ever be.
        const ALL: u64 = 7 | 0x0100_0000;
        let page = stack.start & !(PAGE - 1);
        list.row([libc::SYS_mprotect as u64, page, PAGE, ALL, 0, 0, 0]);
    }
    const SET_NAME: u64 = 15;
    list.row([libc::SYS_prctl as u64, SET_NAME, NAME, 0, 0, 0, 0]);
    let entry = interpreter.as_ref().unwrap_or(&program).entry();
    list.row([GO, stack.start, entry, 0, 0, 0, 0]);
    let list: Vec<u8> = list.0.concat().iter().flat_map(|word| word.to_le_bytes()).collect();
    if list.len() as u64 > NAME - LIST {
        return Err(Errno::NOEXEC);
    }
    let name = plan.name.to_bytes();
    let name = &name[name.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1)..];
    let name = [&name[..name.len().min(15)], b"\0"].concat();
    notify::write_memory(thread, LIST, &list)?;
    notify::write_memory(thread, NAME, &name)?;
    notify::write_memory(thread, stack.start, &stack.bytes)
}

fn random() -> Result<[u64; 2]> {
    let mut bytes = [0; 16];
    let mut arguments = [Argument::Into(&mut bytes), Argument::Number(16), Argument::Number(0)];
    trace::call(libc::SYS_getrandom, &mut arguments)?;
    let number = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    Ok([number(0), number(8)])
}

/// A binary at its place in memory.
struct Placed<'a> {
    elf: &'a Elf,
    /// What is added to its addresses.
    moved: u64,
}

impl<'a> Placed<'a> {
    fn new(elf: &'a Elf, near: u64) -> Self {
        let moved = match elf.is_movable {
            true => near.next_multiple_of(elf.alignment()).wrapping_sub(elf.span().0),
            false => 0,
        };
        Self { elf, moved }
    }

    fn entry(&self) -> u64 {
        self.elf.entry.wrapping_add(self.moved)
    }
}

/// The system calls.
#[derive(Default)]
struct List(Vec<[u64; 7]>);

impl List {
    fn row(&mut self, row: [u64; 7]) {
        self.0.push(row);
    }

    /// Maps a binary.
    fn map(&mut self, placed: &Placed<'_>, what: i32) {
        const PRIVATE: u64 = 2;
        const FIXED: u64 = 0x10;
        const ANONYMOUS: u64 = 0x20;
        const NOBODY: u64 = u64::MAX;
        let mmap = libc::SYS_mmap as u64;
        let directory = i64::from(what) as u64;
        self.row([libc::SYS_openat as u64 | KEEPS, directory, NAME, 0, 0, 0, 0]);
        for segment in &placed.elf.segments {
            let start = segment.address.wrapping_add(placed.moved);
            let (inset, protection) = (start % PAGE, segment.protection);
            let end_in_file = start + segment.in_file;
            let mapped_to = end_in_file.next_multiple_of(PAGE);
            if segment.in_file > 0 {
                let flags = PRIVATE | FIXED;
                let (length, offset) = (segment.in_file + inset, segment.offset - inset);
                self.row([mmap, start - inset, length, protection, flags, OPENED, offset]);
            }
            let writable = protection & 2 != 0;
            let is_longer = segment.in_memory > segment.in_file;
            if is_longer && writable && segment.in_file > 0 && mapped_to > end_in_file {
                self.row([FILL, end_in_file, mapped_to - end_in_file, 0, 0, 0, 0]);
            }
            let end = (start + segment.in_memory).next_multiple_of(PAGE);
            if end > mapped_to {
                let flags = PRIVATE | FIXED | ANONYMOUS;
                self.row([mmap, mapped_to, end - mapped_to, protection, flags, NOBODY, 0]);
            }
        }
        self.row([libc::SYS_close as u64, OPENED, 0, 0, 0, 0, 0]);
    }
}

/// What the kernel has put on the stack: counts and addresses, up to the end of what it tells.
struct Stack {
    start: u64,
    words: Vec<u64>,
}

/// What shall be there.
struct Filled {
    start: u64,
    bytes: Vec<u8>,
}

impl Stack {
    fn read(thread: u32, start: u64) -> Result<Self> {
        let mut bytes = Vec::new();
        loop {
            let at = start + bytes.len() as u64;
            let mut page = vec![0; usize::try_from(PAGE - at % PAGE).unwrap_or_default()];
            let count = notify::read_memory(thread, at, &mut page)?;
            bytes.extend_from_slice(&page[..count]);
            let words: Vec<u64> = bytes
                .chunks_exact(8)
                .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
                .collect();
            if let Some(end) = end_of(&words) {
                return Ok(Self { start, words: words[..end].to_vec() });
            }
            if count == 0 || bytes.len() > LONGEST_BLOCK {
                return Err(Errno::FAULT);
            }
        }
    }

    fn filled(self, plan: &Plan, program: &Placed<'_>, interpreter: Option<&Placed<'_>>) -> Filled {
        let end = self.start + 8 * self.words.len() as u64;
        let name = [plan.name.clone()];
        let before = plan.before.as_deref().unwrap_or_default();
        let texts: Vec<u8> =
            name.iter().chain(before).flat_map(|text| text.as_bytes_with_nul().to_vec()).collect();
        let texts_at = (end - texts.len() as u64) & !15;
        let mut next = texts_at;
        let mut addresses = name.iter().chain(before).map(|text: &CString| {
            let address = next;
            next += text.as_bytes_with_nul().len() as u64;
            address
        });
        let name_at = addresses.next().unwrap_or_default();
        let before: Vec<u64> = addresses.collect();
        let count = usize::try_from(self.words[0]).unwrap_or_default();
        let arguments = &self.words[1..1 + count];
        let arguments: Vec<u64> = match plan.before {
            None => arguments.to_vec(),
            Some(_) => before.iter().chain(arguments.iter().skip(1)).copied().collect(),
        };
        let rest = &self.words[1 + count..];
        let facts = rest[1..].iter().position(|word| *word == 0).map_or(rest.len(), |at| at + 2);
        let mut words = vec![arguments.len() as u64];
        words.extend(arguments);
        words.extend(&rest[..facts]);
        let facts = rest[facts..].chunks_exact(2).map(|fact| (fact[0], fact[1]));
        words.extend(facts.flat_map(|(kind, value)| {
            [kind, fact(kind, plan, program, interpreter, name_at).unwrap_or(value)]
        }));
        let start = (texts_at - 8 * words.len() as u64) & !15;
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(usize::try_from(texts_at - start).unwrap_or_default(), 0);
        bytes.extend(texts);
        Filled { start, bytes }
    }
}

/// What a program is told (`AT_…`), as far as it is not what the starter was told.
fn fact(
    kind: u64,
    plan: &Plan,
    program: &Placed<'_>,
    interpreter: Option<&Placed<'_>>,
    name: u64,
) -> Option<u64> {
    let who = &plan.credentials;
    Some(match kind {
        3 => program.elf.headers_address().wrapping_add(program.moved),
        4 => 56,
        5 => program.elf.header_count,
        7 => interpreter.map_or(0, |placed| placed.moved),
        9 => program.entry(),
        11 => who.users.real.into(),
        12 => who.users.effective.into(),
        13 => who.groups.real.into(),
        14 => who.groups.effective.into(),
        23 => plan.is_lent.into(),
        31 => name,
        _ => return None,
    })
}

/// Where what the kernel tells ends, behind the arguments and the variables.
fn end_of(words: &[u64]) -> Option<usize> {
    let count = usize::try_from(*words.first()?).ok()?;
    let variables = count.checked_add(2)?;
    let facts = variables + words.get(variables..)?.iter().position(|word| *word == 0)? + 1;
    let mut at = facts;
    while *words.get(at)? != 0 {
        at += 2;
    }
    words.get(at + 1).map(|_| at + 2)
}
