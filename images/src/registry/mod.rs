//! A client for registries that speak the OCI distribution specification.
//!
//! Runs in the process that pulls, on one tokio runtime thread; nothing else of
//! podspawn is asynchronous. It only reads: manifests, configurations, blobs.
//!
//! # Why not a ready-made client
//!
//! oci-client 0.18 was to be the base. It makes its own HTTP client and takes
//! none, and what has to be refused here is decided inside of it: redirects
//! follow reqwest's defaults (https to http, and to loopback and private
//! addresses), manifests and token answers are read whole whatever their size,
//! user names and passwords go to any token server the registry names, plain
//! http included, and `Retry-After`, the error bodies of token servers and the
//! status behind a failed stream are not passed on. With its requests gone
//! nothing of it would be left but media type names. So this is reqwest
//! (connections, TLS, proxies), http-auth (challenges) and the distribution
//! specification.
//!
//! # What holds
//!
//! - Every wait is bounded, every body has a largest size, and every digest and
//!   size is verified before the content is used.
//! - Credentials are sent to the registry that asked for them and to its token
//!   server, and follow no redirect to another origin. They appear in no error
//!   and no `Debug`; what a registry says is searched for them.
//! - The environment is not read: proxies, authorities, auth files and helper
//!   directories come with the [`RegistryConfig`].
//! - No HTTP client is made, and no authority read, before a request is sent.

mod auth;
mod blob;
mod client;
mod config;
mod error;
mod http;
mod ping;
mod reach;
mod retry;
mod tls;

pub use config::{HostConfig, MirrorError, ProxyConfig, RegistryConfig, RetryPolicy, Timeouts};
pub use error::FailureKind;

pub(crate) use blob::{BlobWriter, pipe};
pub(crate) use client::{Manifest, Registry};
pub(crate) use error::{RequestError, visible};
pub(crate) use ping::{Ping, ping};
