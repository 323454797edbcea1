//! As much of HTTP/1.1 as an engine's API takes, over a socket of this machine.
//!
//! One request a connection; bodies without a known length go in chunks. `ureq`, which speaks to
//! registries, knows no sockets of the file system.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineAddress {
    /// A socket in the file system.
    Unix(PathBuf),
    /// `host:port`, without TLS.
    Tcp(String),
}

/// The most that an answer may have.
const ANSWER_LIMIT: u64 = 16 << 20;
/// The most that the head of an answer may have.
const HEAD_LIMIT: u64 = 64 << 10;
/// How much is sent at a time.
const CHUNK: usize = 256 << 10;
/// How long an engine may take for an answer, such as unpacking an image.
const PATIENCE: Duration = Duration::from_secs(600);

/// A connection's other side.
pub(super) struct Daemon<'a> {
    address: &'a EngineAddress,
}

/// What goes with a request.
pub(super) enum Body<'a> {
    Empty,
    Archive(&'a mut dyn Read),
}

/// What came back.
#[derive(Debug)]
pub(super) struct Response {
    status: u16,
    body: Vec<u8>,
}

trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

impl<'a> Daemon<'a> {
    pub(super) fn new(address: &'a EngineAddress) -> Self {
        Self { address }
    }

    /// Sends a request and waits for the answer.
    pub(super) fn ask(&self, method: &str, path: &str, body: Body<'_>) -> io::Result<Response> {
        let mut connection = self.connect()?;
        let kind = match body {
            Body::Empty => "Content-Length: 0",
            Body::Archive(_) => "Content-Type: application/x-tar\r\nTransfer-Encoding: chunked",
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: formwork\r\n\
             Connection: close\r\n{kind}\r\n\r\n"
        );
        connection.write_all(head.as_bytes())?;
        if let Body::Archive(archive) = body
            && let Err(error) = send_chunks(archive, &mut connection)
        {
            // Who does not want all of it says why before it hangs up.
            return match read_response(connection) {
                Ok(answer) if !answer.is_success() => Ok(answer),
                _ => Err(error),
            };
        }
        connection.flush()?;
        read_response(connection)
    }

    fn connect(&self) -> io::Result<Box<dyn Connection>> {
        match self.address {
            EngineAddress::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(Box::new(stream))
            }
            EngineAddress::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(Box::new(stream))
            }
        }
    }
}

fn send_chunks(body: &mut dyn Read, connection: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match body.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        connection.write_all(format!("{count:x}\r\n").as_bytes())?;
        connection.write_all(&buffer[..count])?;
        connection.write_all(b"\r\n")?;
        if count == 0 {
            return Ok(());
        }
    }
}

fn read_response(connection: impl Read) -> io::Result<Response> {
    let mut reader = BufReader::new(connection);
    loop {
        let head = read_head(&mut reader)?;
        // Those with 1xx come before the answer proper.
        if head.status >= 200 {
            let body = read_body(&mut reader, &head)?;
            return Ok(Response { status: head.status, body });
        }
    }
}

struct Head {
    status: u16,
    length: Option<u64>,
    is_chunked: bool,
}

fn read_head(reader: &mut impl BufRead) -> io::Result<Head> {
    let mut reader = reader.take(HEAD_LIMIT);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| invalid("the answer is not HTTP"))?;
    let mut head = Head { status, length: None, is_chunked: false };
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(invalid("the answer ends in its head"));
        }
        let Some((name, value)) = line.split_once(':') else {
            match line.trim() {
                "" => return Ok(head),
                _ => return Err(invalid("the answer has a header without a colon")),
            }
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.length = value.trim().parse().ok(),
            "transfer-encoding" => head.is_chunked = value.to_ascii_lowercase().contains("chunked"),
            _ => {}
        }
    }
}

fn read_body(reader: &mut impl BufRead, head: &Head) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if head.status == 204 || head.status == 304 {
        return Ok(body);
    }
    if !head.is_chunked {
        let limit = head.length.unwrap_or(ANSWER_LIMIT).min(ANSWER_LIMIT);
        reader.take(limit).read_to_end(&mut body)?;
        return Ok(body);
    }
    loop {
        let mut line = String::new();
        reader.take(100).read_line(&mut line)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| invalid("a chunk has no size"))?;
        if size == 0 {
            return Ok(body);
        }
        if body.len() as u64 + size > ANSWER_LIMIT {
            return Err(invalid("the answer is far too long"));
        }
        if reader.take(size).read_to_end(&mut body)? as u64 != size {
            return Err(invalid("the answer ends in a chunk"));
        }
        reader.take(2).read_line(&mut String::new())?;
    }
}

impl Response {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Fails with what the engine says unless the request succeeded.
    pub(super) fn expect_success(&self) -> io::Result<()> {
        match self.is_success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("{} (status {})", self.said(), self.status))),
        }
    }

    /// Fails where one of the lines of an answer that was begun as a success tells an error.
    pub(super) fn expect_no_error_line(&self) -> io::Result<()> {
        let lines = self.body.split(|byte| *byte == b'\n');
        let error = lines
            .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
            .find_map(|line| line.get("error").and_then(|text| text.as_str().map(str::to_owned)));
        error.map_or(Ok(()), |error| Err(io::Error::other(error)))
    }

    pub(super) fn json<T: DeserializeOwned>(&self) -> io::Result<T> {
        self.expect_success()?;
        serde_json::from_slice(&self.body).map_err(io::Error::other)
    }

    /// What the engine says for people.
    fn said(&self) -> String {
        let value: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let message = ["message", "cause"].iter().find_map(|key| value.get(key)?.as_str());
        match message {
            Some(message) => message.to_owned(),
            None => String::from_utf8_lossy(&self.body).chars().take(500).collect(),
        }
    }
}

fn invalid(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// A value of a path or a query.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_however_long_they_are_said_to_be() {
        let body = |text: &str| read_response(text.as_bytes()).map(|answer| answer.body);
        let chunked = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\
                       Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n";
        assert_eq!(body(chunked).unwrap(), b"abcd");
        assert_eq!(body("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nabcd").unwrap(), b"ab");
        assert_eq!(body("HTTP/1.1 200 OK\r\n\r\nto the end").unwrap(), b"to the end");
        assert_eq!(body("HTTP/1.1 204 No Content\r\n\r\n").unwrap(), b"");
        for wrong in [
            "",
            "SSH-2.0\r\n",
            "HTTP/1.1 200 OK\r\nx\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        ] {
            assert!(body(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn errors_are_what_the_engine_says() {
        let answer = |status, body: &str| Response { status, body: body.as_bytes().to_vec() };
        let told = answer(500, r#"{"message":"no space"}"#).expect_success().unwrap_err();
        assert_eq!(told.to_string(), "no space (status 500)");
        let lines = "{\"stream\":\"a\"}\n{\"errorDetail\":{},\"error\":\"bad\"}\n";
        let told = answer(200, lines).expect_no_error_line().unwrap_err();
        assert_eq!(told.to_string(), "bad");
        assert!(answer(200, "{\"stream\":\"Loaded\"}\n").expect_no_error_line().is_ok());
        assert_eq!(escaped("localhost:5000/a b"), "localhost%3A5000%2Fa%20b");
    }
}
