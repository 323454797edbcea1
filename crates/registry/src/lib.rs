//! A client for registries: it resolves names to images, pulls and pushes.
//!
//! [`RegistryClient`] speaks the OCI distribution API over HTTP and HTTPS. It is told everything in
//! a [`RegistryConfig`], whose parts come from the files that the ecosystem has: docker's
//! `config.json` ([`Credentials`]), `registries.conf` ([`RegistriesConf`]), `certs.d`.
//!
//! One request passes through these modules, from top to bottom:
//!
//! | module | decides |
//! |---|---|
//! | `pull`, `push`, `referrers`, `download`, `transfer`, `upload` | what to ask for, and what to make of the answer |
//! | `client` | whom to ask (mirrors first), and when to try again (`retry`) |
//! | `session` | credentials (`auth`, `challenge`), redirects, which failure is which error |
//! | `host` | with TLS or without |
//! | `transport` | connections, proxies, certificates (`tls`, `trust`), timeouts |
//!
//! Every byte that comes from a registry is taken for hostile: documents have size limits, blobs are
//! hashed on their way and never longer than their descriptor says, words of strangers lose their
//! control characters. Credentials go to the registry that they are for and to the token server
//! that it names, over TLS unless the registry is declared insecure, and to nobody else.
//!
//! This crate never reads the environment, writes no file, knows nothing of layers or stores, and
//! keeps nothing between two programs. Nothing is asynchronous: threads give the parallelism.

mod address;
mod answer;
mod auth;
mod bucket;
mod challenge;
mod client;
mod config;
mod credentials;
mod document;
mod download;
mod endpoint;
mod error;
mod host;
mod login;
mod proxy;
mod pull;
mod push;
mod referrers;
mod registries_conf;
mod retry;
mod session;
mod tags;
mod text;
mod tls;
mod transfer;
mod transport;
mod trouble;
mod trust;
mod upload;

pub use bucket::{
    Bucket, BucketConfig, BucketKey, BucketKeys, ContainerToken, Object, OpenObject, Unfinished,
};
pub use client::RegistryClient;
pub use config::{Pieces, ProxyConfig, RegistryConfig, Retries, Timeouts, TrustRoots};
pub use credentials::{Credential, Credentials, Keeping, Secret};
pub use document::Document;
pub use download::{Download, DownloadError, Wanted};
pub use error::{Answer, Attempt, RegistryError};
pub use pull::{Known, ResolvedImage};
pub use push::{BlobPush, OpenBlob};
pub use registries_conf::RegistriesConf;
