//! A web server on loopback that serves what a test puts there.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A server that answers until the test's process ends.
pub(crate) struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, File>,
    requests: Vec<String>,
}

/// A file that is served.
#[derive(Clone, Default)]
pub(crate) struct File {
    pub(crate) body: Vec<u8>,
    /// Also decides whether somebody has this version already.
    pub(crate) etag: Option<&'static str>,
    pub(crate) last_modified: Option<&'static str>,
    /// Where the server sends people instead.
    pub(crate) location: Option<String>,
    /// How many bytes the server promises beyond those that it has.
    pub(crate) lacking: usize,
    /// What the `Authorization` header must say.
    pub(crate) authorization: Option<&'static str>,
    pub(crate) content_type: Option<&'static str>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that has gone away is no concern of the server's.
                let _ = answer(stream.unwrap(), &shared);
            }
        });
        Self { port, state }
    }

    /// The address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Serves a file from now on.
    pub(crate) fn put(&self, path: &str, file: File) {
        self.state.lock().unwrap().files.insert(path.to_owned(), file);
    }

    /// Serves some bytes.
    pub(crate) fn put_bytes(&self, path: &str, body: impl Into<Vec<u8>>) {
        self.put(path, File { body: body.into(), ..File::default() });
    }

    /// What was asked since the last call, a path and a status each.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut lines = reader.by_ref().lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        match line?.split_once(": ") {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
            None => break,
        };
    }
    // What a client sends does not matter, but it waits until it has.
    let length = headers.get("content-length").and_then(|length| length.parse().ok());
    std::io::copy(&mut reader.take(length.unwrap_or(0)), &mut std::io::sink())?;
    let mut state = state.lock().unwrap();
    let file = state.files.get(&path).cloned();
    let header = |name: &str| headers.get(name).map(String::as_str);
    let status = match &file {
        None => 404,
        Some(file) if file.location.is_some() => 302,
        Some(file) if file.authorization != header("authorization") => 401,
        Some(file) if file.etag.is_some() && file.etag == header("if-none-match") => 304,
        Some(_) => 200,
    };
    state.requests.push(format!("{path} {status}"));
    let file = file.filter(|_| status != 304).unwrap_or_default();
    write!(stream, "HTTP/1.1 {status} x\r\nConnection: close\r\n")?;
    let named = [("ETag", file.etag), ("Last-Modified", file.last_modified)];
    let named = named
        .into_iter()
        .chain([("Location", file.location.as_deref()), ("Content-Type", file.content_type)]);
    for (name, value) in named.filter_map(|(name, value)| Some((name, value?))) {
        write!(stream, "{name}: {value}\r\n")?;
    }
    write!(stream, "Content-Length: {}\r\n\r\n", file.body.len() + file.lacking)?;
    stream.write_all(&file.body)
}
