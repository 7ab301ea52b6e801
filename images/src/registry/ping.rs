//! `GET /v2/`: whether a registry takes credentials.

use std::sync::OnceLock;

use reqwest::header::HeaderMap;

use super::auth::Auth;
use super::client::Site;
use super::config::{RegistryConfig, Timeouts};
use super::error::RequestError;
use super::http::Http;
use crate::credentials::Credential;

/// How a registry answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ping {
    /// It asked who we are, and was content with the answer.
    Authorized,
    /// It did not ask.
    Open,
}

/// Shows `credential` to `registry`; with `repository`, as for pulling from it.
pub(crate) async fn ping(
    registry: &str,
    repository: &str,
    credential: Credential,
    config: RegistryConfig,
    timeouts: Timeouts,
) -> Result<Ping, RequestError> {
    let site = Site {
        endpoint: config.endpoint(registry, repository.to_owned(), false),
        auth: Auth::with(credential, "this login"),
        scheme: OnceLock::new(),
    };
    let http = Http::new(config, timeouts)?;
    let answer = site.get(&http, "", HeaderMap::new()).await?;
    let host = answer.host.clone();
    http.drain(&host, answer.response).await;
    Ok(match site.auth.current().await.header {
        Some(_) => Ping::Authorized,
        None => Ping::Open,
    })
}
