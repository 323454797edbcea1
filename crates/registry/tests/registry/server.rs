//! An HTTP server that does what a test tells it to, also what no server should.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    pub(crate) method: String,
    /// The path and the query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// How many requests with this method and target came before.
    pub(crate) earlier: usize,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    /// A parameter of the query, decoded.
    pub(crate) fn param(&self, name: &str) -> Option<String> {
        params(self.target.split_once('?')?.1)
            .into_iter()
            .find_map(|(own, value)| (own == name).then_some(value))
    }
}

/// The parameters of a query or a form.
pub(crate) fn params(query: &str) -> Vec<(String, String)> {
    let decode =
        |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decode(name), decode(value))).collect()
}

/// What to answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    length: Option<u64>,
    sent: usize,
    then: Then,
}

/// What to do after the answer, or in place of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Continue,
    Close,
    /// Send nothing at all, not even a status.
    Vanish,
    Hang,
    /// Send one byte after another, with pauses.
    Drip(Duration),
    /// Send the headers, too, in that way.
    DripAll(Duration),
    /// Send zeros until the client has had enough.
    Flood,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let (length, sent) = (Some(body.len() as u64), body.len());
        Self { status, headers: Vec::new(), body, length, sent, then: Then::Continue }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, body)
    }

    /// Bytes from a position on, as an answer to `Range: bytes=N-`.
    pub(crate) fn part(body: &[u8], from: usize) -> Self {
        let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
        Self::new(206, &body[from..]).header("Content-Range", range)
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Lies about the length.
    pub(crate) fn length(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }

    /// Says nothing about the length: the end of the connection is the end of the body.
    pub(crate) fn without_length(mut self) -> Self {
        self.length = None;
        self.then = Then::Close;
        self
    }

    /// Breaks off the connection after so many bytes of the body.
    pub(crate) fn cut(mut self, sent: usize) -> Self {
        self.sent = sent;
        self.then = Then::Close;
        self
    }

    /// Closes the connection without an answer.
    pub(crate) fn vanish() -> Self {
        Self { then: Then::Vanish, ..Self::ok("") }
    }

    /// Falls silent after so many bytes of the body.
    pub(crate) fn hang(mut self, sent: usize) -> Self {
        self.sent = sent;
        self.then = Then::Hang;
        self
    }

    pub(crate) fn drip(mut self, pause: Duration) -> Self {
        self.then = Then::Drip(pause);
        self
    }

    pub(crate) fn drip_all(mut self, pause: Duration) -> Self {
        self.then = Then::DripAll(pause);
        self
    }

    /// Never ends the body.
    pub(crate) fn flood(mut self) -> Self {
        self.length = None;
        self.then = Then::Flood;
        self
    }

    /// Sends the answer; whether the connection goes on.
    fn send(&self, stream: &mut TcpStream, is_head: bool) -> std::io::Result<bool> {
        if self.then == Then::Vanish {
            return Ok(false);
        }
        let mut head = format!("HTTP/1.1 {} Whatever\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(length) = self.length {
            head += &format!("Content-Length: {length}\r\n");
        }
        head += "\r\n";
        let body = if is_head { &[] } else { &self.body[..self.sent] };
        match self.then {
            Then::DripAll(pause) => drip(stream, head.as_bytes(), pause)?,
            _ => stream.write_all(head.as_bytes())?,
        }
        match self.then {
            Then::Drip(pause) | Then::DripAll(pause) => drip(stream, body, pause)?,
            _ => stream.write_all(body)?,
        }
        match self.then {
            Then::Continue | Then::Drip(_) | Then::DripAll(_) => return Ok(true),
            // Until the client closes the connection.
            Then::Hang => drop(stream.read(&mut [0])),
            Then::Flood => while stream.write_all(&[0; 4096]).is_ok() {},
            Then::Close | Then::Vanish => {}
        }
        Ok(false)
    }
}

fn drip(stream: &mut TcpStream, bytes: &[u8], pause: Duration) -> std::io::Result<()> {
    for byte in bytes {
        stream.write_all(std::slice::from_ref(byte))?;
        std::thread::sleep(pause);
    }
    Ok(())
}

type Handler = dyn Fn(&Received) -> Reply + Send + Sync;

/// A server on a port of this machine, which runs until the tests end.
#[derive(Clone)]
pub(crate) struct Server {
    host: String,
    log: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let server = Self { host, log: Arc::default() };
        let log = server.log.clone();
        let handler: Arc<Handler> = Arc::new(handler);
        let counts: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, handler, counts) = (log.clone(), handler.clone(), counts.clone());
                std::thread::spawn(move || {
                    // A client that goes away is what many tests are about.
                    let _ = converse(stream.unwrap(), &log, &*handler, &counts);
                });
            }
        });
        server
    }

    /// Where it listens, as `address:port`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// All requests so far, without those that only find out whether there is TLS.
    pub(crate) fn requests(&self) -> Vec<Received> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|request| request.target != "/v2/").cloned().collect()
    }

    /// The requests for what contains a text, such as `/blobs/`.
    pub(crate) fn requests_for(&self, part: &str) -> Vec<Received> {
        self.requests().into_iter().filter(|request| request.target.contains(part)).collect()
    }
}

fn converse(
    stream: TcpStream,
    log: &Mutex<Vec<Received>>,
    handler: &Handler,
    counts: &Mutex<HashMap<String, usize>>,
) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(mut received) = read_head(&mut reader)? {
        let key = format!("{} {}", received.method, received.target);
        received.earlier = {
            let mut counts = counts.lock().unwrap();
            let count = counts.entry(key).or_default();
            *count += 1;
            *count - 1
        };
        let refused = received.header("expect").is_some() && handler(&received).status >= 400;
        if !refused {
            if received.header("expect").is_some() {
                out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let length = received.header("content-length").map_or(0, |text| text.parse().unwrap());
            reader.by_ref().take(length).read_to_end(&mut received.body)?;
        }
        log.lock().unwrap().push(received.clone());
        let goes_on = handler(&received).send(&mut out, received.method == "HEAD")?;
        if !goes_on || refused {
            break;
        }
    }
    out.shutdown(Shutdown::Both)
}

/// The next request without its body; `None` at the end, and where somebody speaks TLS.
fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<Received>> {
    if reader.fill_buf()?.first().is_none_or(|byte| !byte.is_ascii_uppercase()) {
        return Ok(None);
    }
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut received = Received {
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        ..Received::default()
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                received.headers.push((name.to_owned(), value.trim().to_owned()));
            }
            None => return Ok(Some(received)),
        }
    }
}
