//! A registry on a port of this machine that has one image, and misbehaves as a test tells it to.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What to answer.
pub(crate) enum Reply {
    /// What is there.
    Content,
    /// Something else, with a status and further headers.
    Instead { status: u16, headers: &'static str, body: Vec<u8> },
    /// What is there with one byte changed.
    Wrong,
    /// A part of what is there, and then the end of the connection.
    Half,
    /// A part of what is there, and then nothing for ever.
    Hang,
    /// What is there, a little at a time.
    Drip,
}

/// A request: the path behind `/v2/app/`, and how many came for it before.
pub(crate) struct Request<'a> {
    pub(crate) path: &'a str,
    pub(crate) earlier: usize,
}

impl Request<'_> {
    pub(crate) fn is_blob(&self) -> bool {
        self.path.starts_with("blobs/")
    }

    pub(crate) fn is_manifest(&self) -> bool {
        self.path.starts_with("manifests/")
    }
}

type Handler = dyn Fn(&Request<'_>) -> Reply + Send + Sync;

/// A registry, which runs until the tests end.
pub(crate) struct Registry {
    host: String,
    hanging: Arc<AtomicUsize>,
}

impl Registry {
    /// Serves the image of an image layout as `app`.
    pub(crate) fn start(
        layout: &Path,
        handler: impl Fn(&Request<'_>) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let registry =
            Self { host: listener.local_addr().unwrap().to_string(), hanging: Arc::default() };
        let serving = Arc::new(Serving {
            layout: layout.to_owned(),
            handler: Box::new(handler),
            seen: std::sync::Mutex::default(),
            hanging: Arc::clone(&registry.hanging),
        });
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let serving = Arc::clone(&serving);
                // Clients that go away are what these tests are about.
                std::thread::spawn(move || drop(serving.converse(&stream.unwrap())));
            }
        });
        registry
    }

    /// The name of the image.
    pub(crate) fn image(&self) -> String {
        format!("{}/app", self.host)
    }

    /// Whether somebody waits for the rest of an answer.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.hanging.load(Ordering::SeqCst) > 0
    }
}

struct Serving {
    layout: PathBuf,
    handler: Box<Handler>,
    seen: std::sync::Mutex<Vec<String>>,
    hanging: Arc<AtomicUsize>,
}

impl Serving {
    fn converse(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            // Whoever speaks TLS is not answered.
            if reader.fill_buf()?.first().is_none_or(|byte| !byte.is_ascii_uppercase()) {
                return Ok(());
            }
            let mut lines = Vec::new();
            while lines.last().is_none_or(|line: &String| line != "\r\n") {
                let mut line = String::new();
                reader.read_line(&mut line)?;
                lines.push(line);
            }
            let is_head = lines[0].starts_with("HEAD");
            let path = lines[0].split(' ').nth(1).unwrap();
            let Some(path) = path.strip_prefix("/v2/app/") else {
                head(stream, 200, "", 2)?;
                stream.write_all(b"{}")?;
                continue;
            };
            let earlier = {
                let mut seen = self.seen.lock().unwrap();
                seen.push(path.to_owned());
                seen.iter().filter(|seen| *seen == path).count() - 1
            };
            if !self.answer(stream, &Request { path, earlier }, is_head)? {
                return Ok(());
            }
        }
    }

    /// Answers; whether the connection goes on.
    fn answer(
        &self,
        mut stream: &TcpStream,
        request: &Request<'_>,
        is_head: bool,
    ) -> std::io::Result<bool> {
        let reply = (self.handler)(request);
        if let Reply::Instead { status, headers, body } = reply {
            head(stream, status, headers, body.len())?;
            stream.write_all(if is_head { &[] } else { &body })?;
            return Ok(true);
        }
        let Some((kind, mut content)) = self.find(request.path) else {
            head(stream, 404, "", 0)?;
            return Ok(true);
        };
        head(stream, 200, &format!("Content-Type: {kind}\r\n"), content.len())?;
        if is_head {
            return Ok(true);
        }
        if let Reply::Wrong = reply {
            let middle = content.len() / 2;
            content[middle] ^= 1;
        }
        match reply {
            Reply::Half => stream.write_all(&content[..content.len() / 2])?,
            Reply::Hang => {
                stream.write_all(&content[..content.len() / 2])?;
                self.hanging.fetch_add(1, Ordering::SeqCst);
                std::io::copy(&mut stream, &mut std::io::sink())?;
            }
            Reply::Drip => {
                self.hanging.fetch_add(1, Ordering::SeqCst);
                for piece in content.chunks(1000) {
                    stream.write_all(piece)?;
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            Reply::Content | Reply::Wrong | Reply::Instead { .. } => {
                stream.write_all(&content)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn find(&self, path: &str) -> Option<(String, Vec<u8>)> {
        let (_, name) = path.split_once('/')?;
        let index = fs_err::read(self.layout.join("index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        let top = &index["manifests"][0];
        let digest = if name.starts_with("sha256:") { name } else { top["digest"].as_str()? };
        let is_top = top["digest"] == digest;
        let kind = if is_top { top["mediaType"].as_str()? } else { "application/octet-stream" };
        let file = self.layout.join("blobs/sha256").join(digest.strip_prefix("sha256:")?);
        Some((kind.to_owned(), fs_err::read(file).ok()?))
    }
}

fn head(mut stream: &TcpStream, status: u16, headers: &str, length: usize) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status} Whatever\r\n{headers}Content-Length: {length}\r\n\r\n")
}
