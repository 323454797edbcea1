//! A proxy before a registry that does to chosen answers what networks and registries do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What is done to an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The registry is not even asked.
    Status(u16),
    /// A status, and how long to wait in seconds.
    Wait(u16, u64),
    /// The connection ends after half of the body.
    Half,
    /// The connection ends without an answer; the registry has got the request.
    Vanish,
    /// The length is off by so many bytes.
    Length(i64),
    /// One byte of the body is another.
    Wrong,
    /// A header says something else.
    Header(&'static str, &'static str),
    /// The registry never sees more of the request than its head.
    Deaf,
}

/// A request as it passed.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    /// The number of bytes that were sent with it.
    pub(crate) sent: u64,
}

type Choose = dyn Fn(&Passed) -> Option<Fault> + Send + Sync;

/// A proxy that passes requests on to a registry until the test's process ends.
pub(crate) struct FaultyProxy {
    host: String,
    state: Arc<State>,
}

struct State {
    registry: String,
    choose: Mutex<Arc<Choose>>,
    passed: Mutex<Vec<Passed>>,
    /// The most bytes that a request may have.
    limit: AtomicU64,
}

impl FaultyProxy {
    /// A proxy without faults before a registry.
    pub(crate) fn before(registry: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State {
            registry: registry.to_owned(),
            choose: Mutex::new(Arc::new(|_| None)),
            passed: Mutex::default(),
            limit: AtomicU64::new(u64::MAX),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&shared);
                // A side that goes away is no concern of the proxy's.
                std::thread::spawn(move || drop(converse(stream.unwrap(), &state)));
            }
        });
        Self { host, state }
    }

    /// Where it listens, as `address:port`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Says from now on which requests go wrong, and forgets what has passed.
    pub(crate) fn set(&self, choose: impl Fn(&Passed) -> Option<Fault> + Send + Sync + 'static) {
        *self.state.choose.lock().unwrap() = Arc::new(choose);
        self.state.passed.lock().unwrap().clear();
    }

    /// Refuses larger requests from now on, as proxies do (413).
    pub(crate) fn limit(&self, bytes: u64) {
        self.state.limit.store(bytes, Ordering::Relaxed);
    }

    /// What has passed since the faults were chosen, and what did not get through.
    pub(crate) fn passed(&self) -> Vec<Passed> {
        self.state.passed.lock().unwrap().clone()
    }
}

/// A fault for the first request with this method whose path contains a text; all others pass.
pub(crate) fn once(
    method: &'static str,
    part: &str,
    fault: Fault,
) -> impl Fn(&Passed) -> Option<Fault> + Send + Sync + 'static {
    let (part, done) = (part.to_owned(), Mutex::new(false));
    move |passed| {
        let mut done = done.lock().unwrap();
        let is_meant = !*done && passed.method == method && passed.path.contains(&part);
        *done |= is_meant;
        is_meant.then_some(fault)
    }
}

/// A fault for every request with this method whose path contains a text.
pub(crate) fn always(
    method: &'static str,
    part: &str,
    fault: Fault,
) -> impl Fn(&Passed) -> Option<Fault> + Send + Sync + 'static {
    let part = part.to_owned();
    move |passed| (passed.method == method && passed.path.contains(&part)).then_some(fault)
}

/// Requests of one client, one after the other.
fn converse(client: TcpStream, state: &State) -> std::io::Result<()> {
    let mut out = client.try_clone()?;
    let mut reader = BufReader::new(client);
    loop {
        // Somebody who finds out whether there is TLS.
        if reader.fill_buf()?.first().is_none_or(|byte| !byte.is_ascii_uppercase()) {
            return Ok(());
        }
        let head = read_head(&mut reader)?;
        let Some(first) = head.first().filter(|line| line.contains(" HTTP/1.1")) else {
            return Ok(());
        };
        let mut words = first.split(' ').map(str::to_owned);
        let mut passed = Passed {
            method: words.next().unwrap_or_default(),
            path: words.next().unwrap_or_default(),
            range: value(&head, "range").map(str::to_owned),
            sent: 0,
        };
        let length = value(&head, "content-length").map_or(0, |text| text.parse().unwrap());
        let choose = Arc::clone(&*state.choose.lock().unwrap());
        let is_large = length > state.limit.load(Ordering::Relaxed);
        let fault = if is_large { Some(Fault::Status(413)) } else { choose(&passed) };
        let mut body = Vec::new();
        let is_deaf = matches!(fault, Some(Fault::Deaf));
        let asks_first = value(&head, "expect").is_some();
        let is_refused = matches!(fault, Some(Fault::Status(_) | Fault::Wait(..)));
        if asks_first && !is_deaf && !is_refused {
            out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        // What is not read makes the kernel end the connection before the answer is seen.
        if !(is_deaf || asks_first && is_refused) {
            reader.by_ref().take(length).read_to_end(&mut body)?;
        }
        passed.sent = if is_refused { 0 } else { body.len() as u64 };
        state.passed.lock().unwrap().push(passed.clone());
        if is_deaf {
            return Ok(());
        }
        if let Some(Fault::Status(status) | Fault::Wait(status, _)) = fault {
            let words = r#"{"errors":[{"code":"FAULT","message":"made by a test"}]}"#;
            let wait = match fault {
                Some(Fault::Wait(_, seconds)) => format!("Retry-After: {seconds}\r\n"),
                _ => String::new(),
            };
            let text = if passed.method == "HEAD" { "" } else { words };
            write!(
                out,
                "HTTP/1.1 {status} x\r\n{wait}Connection: close\r\nContent-Length: {}\r\n\r\n{text}",
                words.len()
            )?;
            return Ok(());
        }
        if !answer(&mut out, state, &head, &body, fault)? {
            return Ok(());
        }
    }
}

/// Asks the registry, and passes on what it says; whether the connection goes on.
fn answer(
    out: &mut TcpStream,
    state: &State,
    head: &[String],
    body: &[u8],
    fault: Option<Fault>,
) -> std::io::Result<bool> {
    let mut registry = TcpStream::connect(&state.registry)?;
    let kept = |line: &&String| {
        let lower = line.to_ascii_lowercase();
        !lower.starts_with("connection:") && !lower.starts_with("expect:")
    };
    let lines: Vec<&str> = head.iter().filter(kept).map(String::as_str).collect();
    write!(registry, "{}\r\nConnection: close\r\n\r\n", lines.join("\r\n"))?;
    registry.write_all(body)?;
    let mut reader = BufReader::new(registry);
    let mut said = read_head(&mut reader)?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    said.retain(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let mut sent = bytes.len();
    match fault {
        Some(Fault::Vanish) => return Ok(false),
        Some(Fault::Half) => sent /= 2,
        Some(Fault::Wrong) => bytes[sent / 2] ^= 1,
        Some(Fault::Length(by)) => {
            let length = format!("Content-Length: {}", bytes.len() as i64 + by);
            replace(&mut said, "content-length", length);
        }
        Some(Fault::Header(name, value)) => {
            replace(&mut said, &name.to_ascii_lowercase(), format!("{name}: {value}"));
        }
        _ => {}
    }
    write!(out, "{}\r\n\r\n", said.join("\r\n"))?;
    out.write_all(&bytes[..sent])?;
    Ok(fault.is_none())
}

fn replace(head: &mut Vec<String>, name: &str, line: String) {
    head.retain(|own| !own.to_ascii_lowercase().starts_with(&format!("{name}:")));
    head.push(line);
}

fn value<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    let mut pairs = head.iter().filter_map(|line| line.split_once(':'));
    pairs.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// The lines up to the empty one.
fn read_head(reader: &mut impl BufRead) -> std::io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.is_empty() {
            return Ok(lines);
        }
        lines.push(line);
    }
}
