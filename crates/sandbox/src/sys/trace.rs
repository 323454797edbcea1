//! Tracing of processes (`ptrace(2)`), and system calls that are made in their place.

#![expect(unsafe_code, reason = "system calls without a safe wrapper elsewhere")]

use std::ffi::{CStr, c_int, c_long, c_ulong};
use std::ptr;

use rustix::io::{Errno, Result};

use super::check;

/// How a process that stands still goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resume {
    /// To whatever happens next.
    Freely,
    /// At most to the end of the system call that it is in.
    ToReturn,
    /// Not yet: it was stopped by a signal.
    Stopped,
}

/// What stopped it, besides signals (`PTRACE_EVENT_…`).
pub(crate) const FORKED: [c_int; 3] =
    [libc::PTRACE_EVENT_FORK, libc::PTRACE_EVENT_VFORK, libc::PTRACE_EVENT_CLONE];

/// Follows a process and all that it makes, until either ends.
pub(crate) fn seize(process: i32) -> Result<()> {
    let options = libc::PTRACE_O_EXITKILL
        | libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACESECCOMP
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE;
    request(libc::PTRACE_SEIZE, process, 0, options as usize).map(drop)
}

/// Lets a process go on, with a signal or without (0).
pub(crate) fn resume(process: i32, how: Resume, signal: c_int) -> Result<()> {
    let how = match how {
        Resume::Freely => libc::PTRACE_CONT,
        Resume::ToReturn => libc::PTRACE_SYSCALL,
        Resume::Stopped => libc::PTRACE_LISTEN,
    };
    request(how, process, 0, usize::try_from(signal).unwrap_or_default()).map(drop)
}

/// What the kernel tells besides of an event: the number of a new process, or the old one of this.
pub(crate) fn message(process: i32) -> Result<u64> {
    let mut message: c_ulong = 0;
    let data = (&raw mut message).expose_provenance();
    request(libc::PTRACE_GETEVENTMSG, process, 0, data)?;
    Ok(message)
}

/// The registers of a process that stands still.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Registers(libc::user_regs_struct);

#[cfg(target_arch = "x86_64")]
impl Registers {
    pub(crate) fn of(process: i32) -> Result<Self> {
        // SAFETY: the structure consists of integers, for which zero is a value.
        let mut registers: libc::user_regs_struct =
            unsafe { std::mem::MaybeUninit::zeroed().assume_init() };
        let data = (&raw mut registers).expose_provenance();
        request(libc::PTRACE_GETREGS, process, 0, data)?;
        Ok(Self(registers))
    }

    pub(crate) fn set(&self, process: i32) -> Result<()> {
        let data = (&raw const self.0).expose_provenance();
        request(libc::PTRACE_SETREGS, process, 0, data).map(drop)
    }

    /// The number of the system call.
    pub(crate) fn number(&self) -> u32 {
        self.0.orig_rax as u32
    }

    pub(crate) fn arguments(&self) -> [u64; 6] {
        let Self(r) = self;
        [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9]
    }

    pub(crate) fn stack(&self) -> u64 {
        self.0.rsp
    }

    /// What the call has returned.
    pub(crate) fn result(&self) -> u64 {
        self.0.rax
    }

    /// The same with another result.
    pub(crate) fn with_result(mut self, result: u64) -> Self {
        self.0.rax = result;
        self
    }

    /// Another call in the place of this one.
    pub(crate) fn with_call(mut self, number: u32, arguments: [u64; 3]) -> Self {
        self.0.orig_rax = number.into();
        self.0.rax = number.into();
        [self.0.rdi, self.0.rsi, self.0.rdx] = arguments;
        self
    }

    /// No call, and its result.
    pub(crate) fn refused(mut self, errno: Errno) -> Self {
        self.0.orig_rax = u64::MAX;
        self.0.rax = i64::from(-errno.raw_os_error()) as u64;
        self
    }
}

/// No process of these machines is traced.
#[cfg(not(target_arch = "x86_64"))]
#[derive(Clone, Copy)]
pub(crate) struct Registers;

#[cfg(not(target_arch = "x86_64"))]
impl Registers {
    pub(crate) fn of(_: i32) -> Result<Self> {
        Err(Errno::NOSYS)
    }

    pub(crate) fn set(&self, _: i32) -> Result<()> {
        Err(Errno::NOSYS)
    }

    pub(crate) fn number(&self) -> u32 {
        u32::MAX
    }

    pub(crate) fn arguments(&self) -> [u64; 6] {
        [0; 6]
    }

    pub(crate) fn stack(&self) -> u64 {
        0
    }

    pub(crate) fn result(&self) -> u64 {
        0
    }

    pub(crate) fn with_result(self, _: u64) -> Self {
        self
    }

    pub(crate) fn with_call(self, _: u32, _: [u64; 3]) -> Self {
        self
    }

    pub(crate) fn refused(self, _: Errno) -> Self {
        self
    }
}

fn request(what: libc::c_uint, process: i32, address: usize, data: usize) -> Result<c_long> {
    // SAFETY: the addresses are numbers, or those of structures of the types that the requests
    // fill and read, which the callers own.
    check(unsafe { libc::ptrace(what as _, process, address, data) })
}

/// An argument of a call that is made in another's place.
pub(crate) enum Argument<'a> {
    Number(u64),
    Text(&'a CStr),
    /// Bytes that the kernel reads.
    From(&'a [u8]),
    /// Bytes that it writes.
    Into(&'a mut [u8]),
    Nothing,
}

/// Makes a system call. Only for those which take no more of each buffer than its length, by an
/// argument of their own or by their definition.
pub(crate) fn call(number: c_long, arguments: &mut [Argument<'_>]) -> Result<i64> {
    let mut words = [0_usize; 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        *word = match argument {
            Argument::Number(number) => usize::try_from(*number).map_err(|_| Errno::INVAL)?,
            Argument::Text(text) => text.as_ptr().expose_provenance(),
            Argument::From(bytes) => bytes.as_ptr().expose_provenance(),
            Argument::Into(bytes) => bytes.as_mut_ptr().expose_provenance(),
            Argument::Nothing => ptr::null::<u8>().expose_provenance(),
        };
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: strings end with zeros, and the callers see to the lengths of the others.
    check(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// The program that becomes another one by a list of system calls, behind its own; see
/// `supervisor::traced::program`.
#[cfg(target_arch = "x86_64")]
mod starter {
    // rbx: the list. Each row has seven words: the call, and its arguments. A row of -1 goes on at
    // the address in its second word with the stack of its first one; one of -2 fills a place with
    // zeros; the result of one with bit 32 counts for all later arguments that are -7777.
    std::arch::global_asm!(
        ".pushsection .rodata",
        ".globl formwork_starter, formwork_starter_end",
        "formwork_starter:",
        "  mov rbx, 0x500000001000",
        "  xor r12d, r12d",
        "2: mov rax, [rbx]",
        "  mov rdi, [rbx + 8]",
        "  mov rsi, [rbx + 16]",
        "  mov rdx, [rbx + 24]",
        "  mov r10, [rbx + 32]",
        "  mov r8, [rbx + 40]",
        "  mov r9, [rbx + 48]",
        "  cmp rax, -1",
        "  je 5f",
        "  cmp rax, -2",
        "  je 4f",
        "  cmp rdi, -7777",
        "  cmove rdi, r12",
        "  cmp r8, -7777",
        "  cmove r8, r12",
        "  mov r13, rax",
        "  mov eax, eax",
        "  syscall",
        "  cmp rax, -4095",
        "  jae 6f",
        "  bt r13, 32",
        "  cmovc r12, rax",
        "3: add rbx, 56",
        "  jmp 2b",
        "4: xor eax, eax",
        "  mov rcx, rsi",
        "  cld",
        "  rep stosb",
        "  jmp 3b",
        "5: mov rsp, rdi",
        "  mov rax, rsi",
        "  mov [rsp - 8], rax",
        "  xor eax, eax",
        "  xor ebx, ebx",
        "  xor ecx, ecx",
        "  xor edx, edx",
        "  xor esi, esi",
        "  xor edi, edi",
        "  xor ebp, ebp",
        "  xor r8d, r8d",
        "  xor r9d, r9d",
        "  xor r10d, r10d",
        "  xor r11d, r11d",
        "  xor r12d, r12d",
        "  xor r13d, r13d",
        "  jmp [rsp - 8]",
        "6: mov eax, 231",
        "  mov edi, 127",
        "  syscall",
        "  ud2",
        "formwork_starter_end:",
        ".popsection",
    );

    unsafe extern "C" {
        static formwork_starter: u8;
        static formwork_starter_end: u8;
    }

    pub(crate) fn code() -> &'static [u8] {
        // SAFETY: the two names are the ends of constant bytes of this program.
        unsafe {
            let (start, end) = (&raw const formwork_starter, &raw const formwork_starter_end);
            std::slice::from_raw_parts(start, end.addr() - start.addr())
        }
    }
}

/// The machine code of the program that becomes another one; empty where there is none.
pub(crate) fn starter() -> &'static [u8] {
    #[cfg(target_arch = "x86_64")]
    return starter::code();
    #[cfg(not(target_arch = "x86_64"))]
    return &[];
}
