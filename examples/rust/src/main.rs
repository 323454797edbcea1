//! Life: Conway's worlds over HTTP. Make one, let it live, watch it. Worlds live in memory; a
//! restart forgets them.
//!
//! It listens on `$PORT` (default 8080) until SIGTERM or SIGINT, and then finishes the requests
//! that are under way. `life --health` asks a running one whether it is well, so that an image
//! without a shell can have a HEALTHCHECK.

mod api;
mod world;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let port = match std::env::var("PORT") {
        Ok(port) => port.parse()?,
        Err(_) => 8080,
    };
    if std::env::args().nth(1).as_deref() == Some("--health") {
        check_health(port)
    } else {
        serve(port)
    }
}

#[tokio::main]
async fn serve(port: u16) -> Result<()> {
    let app = api::router(api::Worlds::with_a_glider());
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    println!("life listens on port {port}");

    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told_to_stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        println!("shutting down");
    };
    axum::serve(listener, app).with_graceful_shutdown(told_to_stop).await?;
    Ok(())
}

/// One request by hand is less than an HTTP client among the dependencies.
fn check_health(port: u16) -> Result<()> {
    let limit = Duration::from_secs(2);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut connection = TcpStream::connect_timeout(&address, limit)?;
    connection.set_read_timeout(Some(limit))?;
    connection.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
    let mut status = [0; 12];
    connection.read_exact(&mut status)?;
    if status.ends_with(b" 200") {
        Ok(())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&status)).into())
    }
}
