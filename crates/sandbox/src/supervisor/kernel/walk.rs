//! Which file a process means, as far as it may be one that is shown.
//!
//! Paths are looked up by their words, one after the other, in the supervisor's root directory,
//! which is that of the process. What is found this way is no more than a name: whatever happens
//! to the tree meanwhile, a wrong name leads to another file in there, or to another one that the
//! process may be shown.

use std::collections::VecDeque;

use rustix::fs::CWD;
use rustix::io::{Errno, Result};

use super::Kernel;
use super::asker::Asker;
use super::processes::number;
use super::terminals::{self, Terminal};
use crate::supervisor::calls::Place;
use crate::supervisor::place::{AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW};

/// The most links that are followed for one path, as the kernel has it.
const MOST_LINKS: usize = 40;

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Something that the kernel finds by itself, or does not.
    Tree,
    /// A file of the tree to which the kernel does not find, since the way goes through `/proc`.
    Beyond(Vec<u8>),
    /// Something in `/proc`, by the words of its path there.
    Proc(Vec<Vec<u8>>),
    /// A file that is shown in a place of the tree, by its number.
    File(usize),
    Terminal(Terminal),
}

/// A path as a call has it.
pub(super) struct Asked {
    pub(super) base: i32,
    pub(super) path: Vec<u8>,
    pub(super) follows: bool,
    /// Whether it is the base itself if there is no path.
    pub(super) is_open: bool,
}

impl Kernel {
    /// Whether a path may lead to anything that is shown: by its words, one of which is the last
    /// word of a file that is shown, or of a link that may lead to one.
    pub(super) fn may_concern(&self, path: &[u8]) -> bool {
        let is_relative = path.first() != Some(&b'/');
        self.is_cautious()
            || is_relative && self.somebody_is_inside()
            || path.split(|byte| *byte == b'/').any(|word| self.words.contains(word))
    }
}

impl Asker<'_> {
    /// The path of a call.
    pub(super) fn path(&self, place: Place) -> Result<Asked> {
        let none = libc::AT_FDCWD;
        let (base, path, flags) = match place {
            Place::Path(path) => (none, path, 0),
            Place::Link(path) => (none, path, AT_SYMLINK_NOFOLLOW),
            Place::At(base, path) => (self.int(base) as i32, path, 0),
            Place::LinkAt(base, path) => (self.int(base) as i32, path, AT_SYMLINK_NOFOLLOW),
            Place::AtWith(base, path, flags) => (self.int(base) as i32, path, self.int(flags)),
            Place::Open(open) => {
                let base = self.int(open) as i32;
                return Ok(Asked { base, path: Vec::new(), follows: true, is_open: true });
            }
        };
        let is_open = flags & AT_EMPTY_PATH != 0;
        let path = match self.long(path) {
            0 if is_open => Vec::new(),
            address => self.string(address)?.into_bytes(),
        };
        // What ends with a slash is a directory, or a link to one.
        let follows = flags & AT_SYMLINK_NOFOLLOW == 0 || path.ends_with(b"/");
        // What is open is what it is, and what leads there through `/proc` is none of it.
        let follows = follows || is_open && path.is_empty();
        Ok(Asked { base, path, follows, is_open })
    }

    /// What a path leads to. An error is the kernel's to find.
    pub(super) fn goal(&self, asked: &Asked) -> Result<Goal> {
        if asked.path.is_empty() || !self.kernel.may_concern(&asked.path) {
            return Ok(Goal::Tree);
        }
        let mut at = match asked.path.first() {
            Some(b'/') => Vec::new(),
            _ => words(&self.base(asked.base)?).collect(),
        };
        let mut ahead: VecDeque<Vec<u8>> = words(&asked.path).collect();
        let (mut links, mut is_beyond) = (0, false);
        while let Some(word) = ahead.pop_front() {
            match &word[..] {
                b"." => continue,
                b".." => {
                    at.pop();
                    continue;
                }
                _ => at.push(word),
            }
            if ahead.is_empty() && !asked.follows {
                break;
            }
            let Some((text, is_magic)) = self.link(&at, ahead.is_empty())? else { continue };
            links += 1;
            if links > MOST_LINKS {
                return Ok(Goal::Tree);
            }
            is_beyond |= is_magic;
            at.pop();
            if text.starts_with(b"/") {
                at.clear();
            }
            for word in words(&text).collect::<Vec<_>>().into_iter().rev() {
                ahead.push_front(word);
            }
        }
        Ok(self.kernel.goal_at(at, is_beyond))
    }

    /// The text of a link, and whether only `/proc` has it; `None` for what is no link.
    fn link(&self, at: &[Vec<u8>], is_last: bool) -> Result<Option<(Vec<u8>, bool)>> {
        if at.first().is_some_and(|word| word == b"proc") {
            return self.link_of_proc(&at[1..], is_last);
        }
        let path = join(at);
        if terminals::of_path(&path).is_some() {
            return Ok(None);
        }
        match rustix::fs::readlinkat(CWD, path, Vec::new()) {
            Ok(text) => Ok(Some((text.into_bytes(), false))),
            Err(Errno::INVAL) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn link_of_proc(&self, at: &[Vec<u8>], is_last: bool) -> Result<Option<(Vec<u8>, bool)>> {
        let words: Vec<&[u8]> = at.iter().map(Vec::as_slice).collect();
        let text = match &words[..] {
            [b"self"] => self.identity()?.process.to_string(),
            [b"thread-self"] => {
                format!("{}/task/{}", self.identity()?.process, self.notification.thread)
            }
            [b"mounts"] => "self/mounts".to_owned(),
            [b"net"] => "self/net".to_owned(),
            [process, rest @ ..] if number(process).is_some() => {
                let rest = match rest {
                    [b"task", thread, rest @ ..] if number(thread).is_some() => rest,
                    rest => rest,
                };
                return match rest {
                    [b"cwd" | b"exe" | b"root"] => self.magic_link(at),
                    // What is open is more than its name.
                    [b"fd", _] if !is_last => self.magic_link(at),
                    _ => Ok(None),
                };
            }
            _ => return Ok(None),
        };
        Ok(Some((text.into_bytes(), false)))
    }

    /// Where one of the links leads that are more than a text; here it is no more than that.
    fn magic_link(&self, at: &[Vec<u8>]) -> Result<Option<(Vec<u8>, bool)>> {
        let text = self.read_link_of_proc(at)?;
        match text.first() {
            Some(b'/') => Ok(Some((text, true))),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// The directory that relative paths begin in.
    fn base(&self, base: i32) -> Result<Vec<u8>> {
        let text = match base {
            libc::AT_FDCWD => self.own_link("cwd"),
            descriptor => self.own_link(&format!("fd/{descriptor}")),
        }?;
        if text.starts_with(b"/") { Ok(text) } else { Err(Errno::NOTDIR) }
    }
}

impl Kernel {
    fn goal_at(&self, at: Vec<Vec<u8>>, is_beyond: bool) -> Goal {
        if at.first().is_some_and(|word| word == b"proc") {
            return Goal::Proc(at[1..].to_vec());
        }
        let path = join(&at);
        let terminal = terminals::of_path(&path).filter(|_| self.terminals.is_some());
        if let Some(terminal) = terminal {
            return Goal::Terminal(terminal);
        }
        match self.files.iter().position(|file| file.path == path) {
            Some(number) => Goal::File(number),
            None if is_beyond => Goal::Beyond(path),
            None => Goal::Tree,
        }
    }
}

/// The words of a path.
pub(super) fn words(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|word| !word.is_empty()).map(<[u8]>::to_vec)
}

/// Words as a path from the root.
pub(super) fn join(words: &[Vec<u8>]) -> Vec<u8> {
    let mut path = Vec::new();
    for word in words {
        path.push(b'/');
        path.extend_from_slice(word);
    }
    if path.is_empty() { b"/".to_vec() } else { path }
}
